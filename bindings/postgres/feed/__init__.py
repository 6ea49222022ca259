"""The change feed of a database on a server.

outbox.py    what writers leave
feed.py      what readers make of it, and subscribers
"""
