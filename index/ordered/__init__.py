"""Ordered and unique indexes: declarations and sortable keys."""
