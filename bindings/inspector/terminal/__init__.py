"""A database in the terminal: lists, filters, search, one document (the extra `tui`: textual).

    app         the application, and the collections with which it begins
    documents   a page of documents, with its filter, order and plan
    searching   words or meaning, with the parts of each score
    document    one document, and its history
    texts       stored text as cells

Invariants:
- Nothing is written: the database is one that is open read-only, or is used as if it were.
- Each reading runs in a thread of its own, so keys are answered meanwhile; the newest one of a
  screen is shown.
- Stored text is shown as it is stored: it is never markup, and its control characters are escapes.
"""

from amberdb.inspector.terminal.app import Browser

__all__ = ["Browser"]
