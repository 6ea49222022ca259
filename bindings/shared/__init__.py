"""Checks and queries that several systems share."""
