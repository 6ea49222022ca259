"""Sinks of chat turns: each keeps the contract."""

from pathlib import Path

import pytest

from amberdb import Document
from amberdb.chat import CollectionSink, JsonlSink, Sink
from amberdb.chat.contract import SinkContract, turn
from amberdb.sql import SqlSink
from support.databases import OpenDatabase


class TestCollection(SinkContract):
    @pytest.fixture(autouse=True)
    def _database(self, open_db: OpenDatabase) -> None:
        self.open_db = open_db

    def make(self) -> Sink:
        return CollectionSink(self.open_db())


class TestJsonl(SinkContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "turns.jsonl"

    def make(self) -> Sink:
        return JsonlSink(self.path)


class TestSQLite(SinkContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "turns.db"

    def make(self) -> Sink:
        return SqlSink(f"sqlite:///{self.path}")

    def poisoned(self, number: int) -> Document | None:
        return turn(number, conversation_id="c" * 500)


class TestSQLiteInMemory(TestSQLite):
    def make(self) -> Sink:
        return SqlSink("sqlite://")
