"""Documents, keys and declarations, and the bytes that store them."""
