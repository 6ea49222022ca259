"""Verbs about collections: collections, schema, index, drop, rename, analyze."""
