"""Vector indexes: their vectors in memory and in a file, and the search over them."""
