"""Backup, restore and compaction of a large database: `python -m bench.care`."""
