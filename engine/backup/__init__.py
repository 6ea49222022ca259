"""Backups: the archive format, chains, backup, restore, schedule and automatic restore."""
