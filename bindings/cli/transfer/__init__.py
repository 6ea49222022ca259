"""Verbs that move documents: import, export, copy, move, and the transfers of the systems."""
