"""Verbs about documents: get, find, count, search, put, update, delete."""
