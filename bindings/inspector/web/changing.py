"""What a person can change, with `--write`: documents are edited, deleted, erased.

Invariants:
- Without `--write` there are no such routes; and the database is open read-only, so that it would
  refuse a change however it was asked for.
- A change that is refused shows its page again, with the reason and with what was typed.
"""

from starlette.responses import Response

from amberdb import AmberError
from amberdb.inspector import (
    delete_document,
    edit_document,
    erase_documents,
    parse_where,
    read_collection,
    read_document,
    read_history,
)
from amberdb.inspector.web.visit import Visit, number_in


def edit(visit: Visit) -> Response:
    """Stores a document in place of the one that was seen."""
    name, id = visit.given("collection"), visit.given("id")
    try:
        edit_document(
            visit.db,
            name,
            id,
            visit.given("document"),
            version=number_in(visit.given("version")) or 0,
            confirmed=visit.given("confirm"),
        )
    except AmberError as error:
        return _refused(visit, error)
    return visit.to("/document", collection=name, id=id)


def delete(visit: Visit) -> Response:
    """Deletes a document."""
    name, id = visit.given("collection"), visit.given("id")
    try:
        delete_document(visit.db, name, id, confirmed=visit.given("confirm"))
    except AmberError as error:
        return _refused(visit, error)
    return visit.to("/documents", collection=name)


def erase(visit: Visit) -> Response:
    """Erases the documents that match a filter, and shows the receipt."""
    name, text = visit.given("collection"), visit.given("where")
    receipt, problem = None, None
    try:
        receipt = erase_documents(
            visit.db,
            name,
            parse_where(text) or {},
            reason=visit.given("reason"),
            confirmed=visit.given("confirm"),
        )
    except AmberError as error:
        problem = error.message
    return visit.page(
        "erase.html",
        status=400 if problem else 200,
        collection=read_collection(visit.db, name),
        where_text=text,
        reason=visit.given("reason"),
        receipt=receipt,
        problem=problem,
    )


def erase_form(visit: Visit) -> Response:
    """Asks for the reason of an erasure, and for the name of the collection."""
    return visit.page(
        "erase.html",
        collection=read_collection(visit.db, visit.asked("collection")),
        where_text=visit.asked("where"),
        reason="",
        receipt=None,
        problem=None,
    )


def _refused(visit: Visit, error: AmberError) -> Response:
    """The page of the document, with the reason; the text is that of the person."""
    name, id = visit.given("collection"), visit.given("id")
    return visit.page(
        "document.html",
        status=400,
        collection=read_collection(visit.db, name),
        id=id,
        view=read_document(visit.db, name, id),
        history=read_history(visit.db, name, id),
        whole=visit.given("document"),
        problem=error.message,
    )
