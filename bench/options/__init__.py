"""What the options and the indexes of a collection cost a write."""
