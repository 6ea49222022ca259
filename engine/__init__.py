"""The database: collections, transactions, snapshots, memtable, checkpoint, recovery, planner.

database      opens, owns every part, closes      commit        the way of a write
collection    what people call                    memtable, view the way of a read
transaction   transactions and snapshots          checkpoint    memtable to LMDB, then the log goes
query, planner, scan, page   the way of a query   recovery      from a path to parts that agree
schema, catalog, stored, codec, documents         what things are, and their bytes
indexing, expiry, feed, background, check         the work beside reading and writing
"""
