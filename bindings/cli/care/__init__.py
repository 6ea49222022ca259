"""Verbs that keep a database sound: backups, checks, repairs, erasures."""
