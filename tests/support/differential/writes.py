"""Writes as data: each is done to a database and, the long way, to the model of one owner.

Invariants:
- What a write does depends on itself, the model and the time alone: it can be done to the model
  again, in another process, with the same result.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from amberdb import Database, DocumentError, DuplicateKeyError, Sync, WritableCollection
from support.differential.declared import MAIN
from support.differential.difference import differ, outcome
from support.differential.reads import Known, Read
from support.model import ModelCollection
from support.reference import Doc

Models: TypeAlias = Mapping[str, ModelCollection]
"""By the name of the collection."""


class RolledBack(Exception):
    """Leaves a transaction."""


@dataclass(frozen=True)
class Write(ABC):
    """One write to one collection."""

    collection: str
    sync: Sync | None

    @abstractmethod
    def run(self, target: WritableCollection) -> Any:
        """What the call returns."""

    @abstractmethod
    def expect(self, model: ModelCollection, now_us: int) -> Any:
        """What the call is to return; changes the model. Raises what the call is to raise."""

    def compare(self, db: Database, models: Models, now_us: int) -> Models:
        """Raises Difference; the models afterwards."""
        wanted, models = self.attempt(models, now_us)
        differ(self, outcome(lambda: self.run(db[self.collection])), wanted)
        return models

    def attempt(self, models: Models, now_us: int) -> tuple[Any, Models]:
        """The outcome of a commit of its own, and the models afterwards."""
        after = copied(models)
        try:
            wanted = self.expect(after[self.collection], now_us)
            after[self.collection].check_unique(now_us)
        except DocumentError as error:
            return type(error).__name__, models
        return wanted, after


@final
@dataclass(frozen=True)
class Put(Write):
    document: Doc
    is_insert: bool

    def run(self, target: WritableCollection) -> Any:
        put = target.insert if self.is_insert else target.put
        return put(self.document, sync=self.sync)

    def expect(self, model: ModelCollection, now_us: int) -> Any:
        return model.put(self.document, now_us, 0, insert=self.is_insert)


@final
@dataclass(frozen=True)
class PutMany(Write):
    documents: tuple[Doc, ...]

    def run(self, target: WritableCollection) -> Any:
        return target.put_many(self.documents, sync=self.sync)

    def expect(self, model: ModelCollection, now_us: int) -> Any:
        return [model.put(document, now_us, 0) for document in self.documents]


@final
@dataclass(frozen=True)
class Update(Write):
    id: str
    patch: Doc

    def run(self, target: WritableCollection) -> Any:
        target.update(self.id, self.patch, sync=self.sync)

    def expect(self, model: ModelCollection, now_us: int) -> Any:
        model.update(self.id, self.patch, None, now_us, 0)


@final
@dataclass(frozen=True)
class Delete(Write):
    id: str

    def run(self, target: WritableCollection) -> Any:
        return target.delete(self.id, sync=self.sync)

    def expect(self, model: ModelCollection, now_us: int) -> Any:
        return model.delete(self.id, now_us)


@final
@dataclass(frozen=True)
class DeleteMany(Write):
    where: Doc

    def run(self, target: WritableCollection) -> Any:
        return target.delete_many(self.where, sync=self.sync)

    def expect(self, model: ModelCollection, now_us: int) -> Any:
        return model.delete_many(self.where, now_us)


@final
@dataclass(frozen=True)
class Transaction:
    """Writes to several collections, and reads between them of what it has written."""

    steps: tuple[Write | Read, ...]
    rolls_back: bool
    sync: Sync | None

    def compare(self, db: Database, models: Models, now_us: int) -> Models:
        """Raises Difference; the models afterwards."""
        wanted, after = self.attempt(models, now_us)
        differ(self, outcome(lambda: self._run(db, copied(models), now_us)), wanted)
        return after

    def _run(self, db: Database, models: Models, now_us: int) -> Any:
        try:
            with db.transaction(sync=self.sync) as tx:
                for step in self.steps:
                    target, model = tx[step.collection], models[step.collection]
                    if isinstance(step, Read):
                        may_refuse = step.collection == MAIN
                        step.compare(target, Known(model, now_us, True, may_refuse))
                        continue
                    wanted = _expected(step, model, now_us)
                    differ((self, step), _got(step, target), wanted)
                if self.rolls_back:
                    raise RolledBack
        except RolledBack:
            return "rolled back"

    def attempt(self, models: Models, now_us: int) -> tuple[Any, Models]:
        """As that of a Write."""
        after = copied(models)
        for step in self.steps:
            if isinstance(step, Write):
                _expected(step, after[step.collection], now_us)
        if self.rolls_back:
            return "rolled back", models
        try:
            for model in after.values():
                model.check_unique(now_us)
        except DuplicateKeyError as error:
            return type(error).__name__, models
        return None, after


def _expected(step: Write, model: ModelCollection, now_us: int) -> Any:
    return outcome(lambda: step.expect(model, now_us))


def _got(step: Write, target: WritableCollection) -> Any:
    return outcome(lambda: step.run(target))


def copied(models: Models) -> dict[str, ModelCollection]:
    """Models that can be changed, or kept."""
    return {name: model.copy() for name, model in models.items()}
