"""Verbs that serve a database: serve, mcp."""
