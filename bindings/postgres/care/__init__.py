"""The care of a database on a server.

expiry.py    the removal of expired documents
"""
