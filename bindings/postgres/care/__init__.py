"""The care of a database on a server: expiry.py removes expired documents, background.py is the
thread that does it, and prunes the outbox, and check.py compares indexes with documents."""
