"""Documents, keys and declarations, and their bytes."""
