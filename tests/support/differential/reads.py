"""Reads as data: each asks a collection, of whatever kind, and compares the answer with the model.

Invariants:
- A read asks for one owner's documents, which are exactly those of the model; at a fixed Lsn its
  search is compared, score by score, with brute force over all documents of the collection.
- A refusal is a difference, except where the index asked for may be missing or incomplete.
"""

# What a document holds has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from amberdb import CursorError, Hits, MigrationError, QueryError, ReadableCollection, Text, Vector
from amberdb.index.registry import IndexSpec
from amberdb.index.text.query import parse
from amberdb.index.text.text import TextExtractor
from support import reference, text_reference
from support.differential.declared import SPECS
from support.differential.difference import Difference, differ, differ_in_documents, plain
from support.model import ModelCollection
from support.ranking import agree, nearest
from support.reference import Doc, matches


@final
@dataclass(frozen=True)
class Known:
    """What is known of one owner's documents in a collection at one moment."""

    model: ModelCollection
    now_us: int
    is_fixed: bool
    """All that is read is read at one Lsn."""
    may_refuse: bool = False
    """Indexes may be missing, incomplete, or dropped between two pages."""
    specs: Mapping[str, IndexSpec] = field(default_factory=lambda: SPECS)
    """The search indexes by name."""


@dataclass(frozen=True)
class Read(ABC):
    """One question to a collection."""

    collection: str
    where: Doc
    """With the owner, or with a value that nobody else's documents have."""

    @abstractmethod
    def compare(self, target: ReadableCollection, known: Known) -> bool:
        """Raises Difference. Whether there was an answer."""


@final
@dataclass(frozen=True)
class Get(Read):
    """One document by its id, which is in `where`."""

    def compare(self, target: ReadableCollection, known: Known) -> bool:
        id: str = self.where["id"]
        wanted = known.model.get(id, known.now_us)
        differ(self, plain(target.get(id)), wanted)
        differ(self, id in target, wanted is not None)
        return True


@final
@dataclass(frozen=True)
class Find(Read):
    """All that match, at once or page by page, and how many there are."""

    order_by: list[str] | None
    page: int | None

    def compare(self, target: ReadableCollection, known: Known) -> bool:
        wanted = known.model.find(self.where, self.order_by, known.now_us)
        differ((self, "count"), target.count(self.where), len(wanted))
        try:
            found = self._pages(target)
        except CursorError:
            if not known.may_refuse or known.is_fixed:
                raise
            return False
        differ_in_documents(self, found, wanted)
        if self.order_by is not None:
            order = self.order_by
            differ((self, "order"), _places(found, order), _places(wanted, order))
        return True

    def _pages(self, target: ReadableCollection) -> list[Doc]:
        found: list[Doc] = []
        page = target.find(self.where, order_by=self.order_by, limit=self.page)
        found += page
        while self.page is not None and page.cursor is not None:
            page = target.find(
                self.where, order_by=self.order_by, limit=self.page, after=page.cursor
            )
            found += page
        return found


def _places(documents: list[Doc], order_by: list[str]) -> list[list[Any]]:
    """What the order tells apart. Among equal documents the order is that of their rows, and a
    document gets a new row when the content of a search index changes."""
    places: list[list[Any]] = []
    for document in documents:
        place: list[Any] = []
        for name in order_by:
            value: Any = reference.field(document, name.removeprefix("-"))
            elements: list[Any] = (value or [None]) if isinstance(value, list) else [value]
            choose = max if name.startswith("-") else min
            place.append(choose(map(reference.rank, elements)))
        places.append(place)
    return places


def search_text(target: ReadableCollection, question: str, where: Doc, limit: int) -> Hits:
    """A search in the language with operators: every one of the run is asked here."""
    return target.search(query=question, where=where, limit=limit)


@dataclass(frozen=True)
class _Search(Read):
    limit: int

    def compare(self, target: ReadableCollection, known: Known) -> bool:
        try:
            hits = self._ask(target)
        except (QueryError, MigrationError):
            if not known.may_refuse:
                raise
            return False
        own = {held.doc["id"]: held.doc for held in known.model.live(known.now_us).values()}
        for hit in hits:
            if hit.id in own:
                differ((self, "document"), plain(hit.document), own[hit.id])
        fixed = known.is_fixed
        everything = [plain(each) or {} for each in target.documents()] if fixed else None
        passed = [document for document in own.values() if matches(document, self.where)]
        try:
            self._judge(hits, known, passed, everything)
        except AssertionError as error:
            raise Difference(f"{self}: {error}, how {hits.how}") from error
        return True

    @abstractmethod
    def _ask(self, target: ReadableCollection) -> Hits: ...

    @abstractmethod
    def _judge(
        self, hits: Hits, known: Known, passed: list[Doc], everything: list[Doc] | None
    ) -> None:
        """`passed` are the documents that `where` lets through; `everything`: all of the
        collection, if the answer is of a fixed Lsn."""


@final
@dataclass(frozen=True)
class SearchText(_Search):
    """By words, with operators."""

    question: str

    def _ask(self, target: ReadableCollection) -> Hits:
        return search_text(target, self.question, self.where, self.limit)

    def _judge(
        self, hits: Hits, known: Known, passed: list[Doc], everything: list[Doc] | None
    ) -> None:
        (name,) = hits.how["indexes"]
        spec = known.specs[name]
        assert isinstance(spec, Text)
        scores = text_scores(spec, self.question, passed, everything or passed)
        if everything is not None:
            agree(hits, scores, self.limit)
            return
        found = [hit.id for hit in hits]  # scores depend on what others write meanwhile
        assert len(found) == len(set(found)) == min(self.limit, len(scores)), (found, scores)
        assert scores.keys() >= set(found), (found, scores)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@final
@dataclass(frozen=True)
class SearchVector(_Search):
    """By nearness, which no other document has a part in."""

    vector: list[float]

    def _ask(self, target: ReadableCollection) -> Hits:
        return target.search(vector=self.vector, where=self.where, limit=self.limit)

    def _judge(
        self, hits: Hits, known: Known, passed: list[Doc], everything: list[Doc] | None
    ) -> None:
        (name,) = hits.how["indexes"]
        spec = known.specs[name]
        assert isinstance(spec, Vector)
        agree(hits, nearest(passed, self.vector, spec.field, spec.metric), self.limit)


def text_scores(
    spec: Text, question: str, passed: list[Doc], everything: list[Doc]
) -> dict[str, float]:
    """By brute force: the score of each document of `passed` that matches."""
    extractor = TextExtractor(spec)
    rows: dict[int, Any] = dict(enumerate(everything))
    ids = {document["id"] for document in passed}
    among = [row for row, document in rows.items() if document["id"] in ids]
    ranked = text_reference.ranked(extractor, rows, parse(question, extractor.analyzer), among)
    return {rows[row]["id"]: score for row, score in ranked}
