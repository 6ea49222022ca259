"""Calls that are one statement on the server, each a transaction of its own."""
