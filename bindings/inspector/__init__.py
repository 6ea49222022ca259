"""What a database holds, read for people: for the pages of `amberdb ui`, and for a terminal.

    overview    collections with counts, sizes and indexes
    documents   a page of documents with its plan; filters that a person writes
    document    one document; its history as far as the log holds it, with differences
    search      by words, by meaning, by both, with the parts of each score
    vector_map  a sample of the vectors in two dimensions
    feed measures backups checking exports editing

Invariants:
- This package knows no page and no terminal: it returns values, with text as it is stored. Only
  `amberdb.inspector.web` needs the extra `ui`.
- Every reading is bounded: by a page, a sample, or a time after which it says where it stopped.
"""

from amberdb.inspector.backups import (
    BackupFile,
    Backups,
    Chain,
    Points,
    read_backups,
    read_points,
)
from amberdb.inspector.checking import Checking, CheckState
from amberdb.inspector.differences import Difference, differences
from amberdb.inspector.document import (
    DocumentView,
    VectorSummary,
    read_document,
    whole_text,
)
from amberdb.inspector.documents import Cell, DocumentsPage, Plan, Row, read_page, read_plan
from amberdb.inspector.editing import delete_document, edit_document, erase_documents
from amberdb.inspector.exports import export_documents
from amberdb.inspector.feed import ChangeLine, Changes, newest_changes, wait_for_changes
from amberdb.inspector.filters import (
    OPERATORS,
    Condition,
    conditions_of,
    parse_where,
    where_of,
    where_text,
)
from amberdb.inspector.history import History, Version, read_history
from amberdb.inspector.measures import Measures, read_measures
from amberdb.inspector.overview import (
    CollectionSummary,
    IndexSummary,
    read_collection,
    read_collections,
)
from amberdb.inspector.search import Found, FoundDocument, ScorePart, search_documents
from amberdb.inspector.values import JsonText, cell, json_text, kind_of
from amberdb.inspector.vector_map import MapPoint, VectorMap, read_map

__all__ = [
    "BackupFile",
    "Backups",
    "Cell",
    "Chain",
    "ChangeLine",
    "Changes",
    "CheckState",
    "Checking",
    "CollectionSummary",
    "Condition",
    "Difference",
    "DocumentView",
    "DocumentsPage",
    "Found",
    "FoundDocument",
    "History",
    "IndexSummary",
    "JsonText",
    "MapPoint",
    "Measures",
    "OPERATORS",
    "Plan",
    "Points",
    "Row",
    "ScorePart",
    "VectorMap",
    "VectorSummary",
    "Version",
    "cell",
    "conditions_of",
    "delete_document",
    "differences",
    "edit_document",
    "erase_documents",
    "export_documents",
    "json_text",
    "kind_of",
    "newest_changes",
    "parse_where",
    "read_backups",
    "read_collection",
    "read_collections",
    "read_document",
    "read_history",
    "read_map",
    "read_measures",
    "read_page",
    "read_plan",
    "read_points",
    "search_documents",
    "wait_for_changes",
    "where_of",
    "where_text",
    "whole_text",
]
