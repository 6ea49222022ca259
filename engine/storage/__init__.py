"""LMDB, memtables, views, MANIFEST, STATUS and files of the cache."""
