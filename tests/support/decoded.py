"""Which documents are decoded by reads, in a directory and on a server."""

from collections.abc import Callable

import pytest

from amberdb._types import Document
from amberdb.engine.schema.schema import Schema


def note_decoded(monkeypatch: pytest.MonkeyPatch, note: Callable[[Document], object]) -> None:
    """Calls `note` with each document that is decoded from now on."""
    kinds: list[type[Schema]] = [Schema, *Schema.__subclasses__()]
    for kind in kinds:
        decode = kind.decode

        def noting(body: bytes, decode: Callable[[bytes], Document] = decode) -> Document:
            document = decode(body)
            note(document)
            return document

        monkeypatch.setattr(kind, "decode", staticmethod(noting))
