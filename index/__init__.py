"""Indexes: from documents to sorted bytes, postings and vectors. Opens no file.

registry      all kinds of indexes, and a declaration read back from the catalog
fusion        several rankings combined: reciprocal rank fusion, diversity, recency
ordered/      ordered and unique indexes: declarations, and sortable keys of documents
text/         full-text indexes: analysis, postings, BM25, snippets
vector/       vector indexes: distances, exact search, the HNSW graph
declaration   fields and options that the declarations share
paths         dotted paths into documents

An import goes down this list, never up.
"""
