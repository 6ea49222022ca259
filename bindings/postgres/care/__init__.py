"""The care of a database on a server: expiry.py removes expired documents, and background.py is
the thread that does it, and prunes the outbox."""
