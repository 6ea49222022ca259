"""Vector indexes.

vector            the declaration
coercion          how a vector is checked and converted
embedding_queue   the documents whose text has no vector yet
distance          scores of vectors
matrix            all vectors of an index in memory: exact search
codes             one bit per dimension, which excludes most vectors from it
hnsw              approximate search by hnswlib's graph
"""
