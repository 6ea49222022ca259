"""The change feed of a database on a server: outbox.py is what writers leave, and feed.py what
readers make of it, and subscribers."""
