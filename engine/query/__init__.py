"""Filters, plans, scans and pages."""
