"""Full-text indexes: analysis, postings, BM25."""
