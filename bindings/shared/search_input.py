"""Search input of the systems: a text, or a query in the query language."""

from amberdb import QueryError


def asked(text: str | None, query: str | None) -> dict[str, str]:
    """The argument of Collection.search() for a text, or for a query. Raises QueryError unless one
    of the two is given."""
    if (text is None) == (query is None):
        raise QueryError("give a text, any words, or query=, in the query language, and not both")
    for name, value in (("text", text), ("query", query)):
        if value is not None:
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise QueryError(f"{name} must be a str, not {type(value).__name__}")
            return {name: value}
    raise AssertionError("one is given")
