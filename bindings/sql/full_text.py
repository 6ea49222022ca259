"""Full text in SQL servers, by the words of AmberDB's own analyzer: the same hits in all of them.

    SQLite            an FTS5 table of the words, kept by triggers
    MySQL, MariaDB    a FULLTEXT index over a column of the words
    PostgreSQL        a tsvector column of the words, and a GIN index

Invariants:
- The words of a row are those that a Text index would have for its texts, so Chinese is found
  where the server has no parser for it.
- In SQLite and MySQL a word is ASCII, 4 to 80 letters and digits, and no stop word of the server:
  InnoDB indexes words of 3 to 84 characters.
- A row has no more words than a tsvector holds, 1 MB; of longer texts the first ones count.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.elements import BindParameter, ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from amberdb._shared.words import query_words, words_of
from amberdb.sql.columns import is_mysql

WORDS_BYTES_MAX: Final = 500_000
"""Of the words of one row. A tsvector takes some bytes more for each."""
QUERY_WORDS_MAX: Final = 3_000
_WORD_CHARACTERS_MAX: Final = 80


AnySelect: TypeAlias = "sa.Select[*tuple[Any, ...]]"


class _Vector(UserDefinedType[Any]):
    """A tsvector that is made of a list of words."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "TSVECTOR"

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return sa.func.array_to_tsvector(sa.cast(bindvalue, ARRAY(sa.Text)))


class IndexedWords(TypeDecorator[list[str]]):
    """A column of words, bound as a list."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_Vector())
        if is_mysql(dialect):
            plain = mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin")
            return dialect.type_descriptor(plain)
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return " ".join(map(_ascii, value))


def indexed_words(texts: Iterable[str]) -> list[str]:
    """The words of a row, as far as they fit."""
    found: list[str] = []
    left = WORDS_BYTES_MAX
    for word in words_of(texts):
        left -= len(word.encode()) + 8
        if left < 0:
            break
        found.append(_short(word))
    return found


def asked_words(text: str) -> list[str]:
    """The words that a search for a text looks for."""
    return [_short(word) for word in query_words(text)[:QUERY_WORDS_MAX]]


def add_index(table: sa.Table) -> None:
    """Declares the index over the column `words` of a table. SQLite's is in sqlite_index()."""
    name, words = f"{table.name}_words", table.c.words
    sa.Index(name, words, postgresql_using="gin").ddl_if("postgresql")
    sa.Index(name, words, mysql_prefix="FULLTEXT").ddl_if("mysql")
    sa.Index(name, words, mariadb_prefix="FULLTEXT").ddl_if("mariadb")


def sqlite_index(table: sa.Table) -> list[str]:
    """The statements that make the index in SQLite; the table has an integer key `position`."""
    name = table.name
    index = f"{name}_words"
    insert = f"INSERT INTO {index}(rowid, words) VALUES (new.position, new.words);"
    delete = (
        f"INSERT INTO {index}({index}, rowid, words) VALUES ('delete', old.position, old.words);"
    )
    return [
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {index} USING fts5"
        f"(words, content='{name}', content_rowid='position', tokenize='ascii')",
        f"CREATE TRIGGER IF NOT EXISTS {index}_insert AFTER INSERT ON {name} BEGIN {insert} END",
        f"CREATE TRIGGER IF NOT EXISTS {index}_delete AFTER DELETE ON {name} BEGIN {delete} END",
        f"CREATE TRIGGER IF NOT EXISTS {index}_update AFTER UPDATE ON {name} "
        f"BEGIN {delete} {insert} END",
    ]


def query_text(kind: str, words: list[str]) -> str:
    """A query for rows that have any of these words, in the language of the server."""
    if kind == "postgresql":
        quoted = (word.replace("\\", "\\\\").replace("'", "''") for word in words)
        return " | ".join(f"'{word}'" for word in quoted)
    asked = map(_ascii, words)
    return (" OR " if kind == "sqlite" else " ").join(asked)


def matching(kind: str, table: sa.Table, select: AnySelect) -> AnySelect:
    """The rows of a select that a query finds, the best first and of equals the newest, by
    parameters `words`, a query_text(), and `count`."""
    asked = sa.bindparam("words", type_=sa.Text())
    best: ColumnElement[Any]
    if kind == "postgresql":
        column, query = sa.type_coerce(table.c.words, sa.Text()), sa.cast(asked, _Query())
        select = select.where(column.op("@@")(query))
        best = sa.func.ts_rank(column, query).desc()
    elif kind == "sqlite":
        name = f"{table.name}_words"
        index = sa.table(name, sa.column("rowid"), sa.column("rank"), sa.column(name))
        select = select.join(index, table.c.position == index.c.rowid)
        select = select.where(index.c[name].op("MATCH")(asked))
        best = index.c.rank
    else:
        match = mysql.match(table.c.words, against=asked).in_boolean_mode()
        select, best = select.where(match), match.desc()
    count = sa.bindparam("count", type_=sa.BigInteger())
    return select.order_by(best, table.c.position.desc()).limit(count)


class _Query(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "TSQUERY"


def _short(word: str) -> str:
    """The word, or a digest of one that is longer than any natural word."""
    if len(word) <= _WORD_CHARACTERS_MAX:
        return word
    return f"={blake2b(word.encode(), digest_size=16).hexdigest()}"


def _ascii(word: str) -> str:
    """The word as an ASCII word: w and the letters, padded, or x and its bytes."""
    if word.isascii() and word.isalnum():
        text = f"w{word}".ljust(4, "0")
    else:
        text = f"x{word.encode().hex()}"
    if len(text) <= _WORD_CHARACTERS_MAX:
        return text
    return f"h{blake2b(word.encode(), digest_size=16).hexdigest()}"
