"""Verbs that show the state of a database: info, stats, log."""
