"""Vector indexes: distances, matrices, the HNSW graph."""
