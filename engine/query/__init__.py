"""Queries: filters, plans, scans, pages and cursors."""
