"""The rows of the report."""
