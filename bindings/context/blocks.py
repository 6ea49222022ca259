"""Memory blocks: labelled texts with a limit that every model call gets, and that an agent edits.

    blocks.create("persona", "You teach.", role_name="tutor")   in all sessions of the role
    blocks.create("human", "Lin, 12 years.", user_id=lin)       in all sessions of the user
    blocks.create("plan", session_id=session)                   in this session
    blocks.append("human", "Likes tea.", session_id=session)    the nearest with this label

Invariants:
- A block has one owner: a session, a user or a role. Its id is made of owner and label, so an owner
  has one block of a label.
- A session sees the blocks of its role, of its user and its own; of one label the nearest.
- A change reads the value that it changes in its own transaction: concurrent changes lose nothing.
- A value never has more characters than its limit; a change that would is refused.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from amberdb import (
    Database,
    Document,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
    Snapshot,
    Transaction,
)
from amberdb._jsonl.text import dumps
from amberdb._shared.checks import check_name, check_str
from amberdb._shared.queries import having
from amberdb._shared.systems import in_transaction
from amberdb.context.sessions import Sessions
from amberdb.context.types import room_beside_newest

LIMIT: Final = 5_000
"""The characters of a block that names no limit."""
_SCOPES: Final = ("role", "user", "session")
"""The farthest first, as they are shown."""


@final
class Blocks:
    """`context.blocks` of an AgentContext; threads may share it.

    Each method takes the owner of the block: `session_id`, `user_id` or `role_name`. With a session
    those that read or change one take the nearest block with the label: its own, its user's or its
    role's."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._db = sessions.db
        self._name = sessions.names.blocks

    def create(
        self,
        label: str,
        value: str = "",
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
        limit: int = LIMIT,
        description: str = "",
        read_only: bool = False,
        tx: Transaction | None = None,
    ) -> Document:
        """Creates a block of this owner. `limit` counts characters; `description` is shown to the
        model; `read_only`: append() and replace() are refused. Raises InvalidDocumentError,
        MissingKeyError, DuplicateKeyError."""
        check_name("label", label)
        scope, owner = _owner(session_id, user_id, role_name)
        block: Document = {
            "id": _id(scope, owner, label),
            "owner": f"{scope}:{owner}",
            "label": label,
            "value": "",
            "limit": limit,
            "description": "",
            "read_only": False,
        }
        changes = {"value": value, "description": description, "read_only": read_only}

        def create(tx: Transaction) -> None:
            session = self._session(tx, scope, owner)
            if session is not None:
                block.update({key: session[key] for key in ("user_id", "role_name")})
            block[f"{scope}_name" if scope == "role" else f"{scope}_id"] = owner
            block.update({**changes, "created_at": self._sessions.now()})
            self._check(tx, block, session)
            tx[self._name].insert(block)

        in_transaction(self._db, tx, create)
        return block

    def get(
        self,
        label: str,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
    ) -> Document:
        """The block with this label: label, value, limit, description, read_only and its owner.
        Raises MissingKeyError."""
        with self._db.snapshot() as at:
            return self._found(at, label, session_id, user_id, role_name)[0]

    def of(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
    ) -> list[Document]:
        """The blocks of a user or of a role, by label; or those that a session sees, in the order
        in which a model gets them: of its role, of its user, its own. Raises MissingKeyError."""
        scope, owner = _owner(session_id, user_id, role_name)
        with self._db.snapshot() as at:
            session = self._session(at, scope, owner)
            return self._of(at, scope, owner) if session is None else self.seen(at, session)

    def append(
        self,
        label: str,
        content: str,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
        tx: Transaction | None = None,
    ) -> Document:
        """Adds a line to the value of a block; the block after that. Raises MissingKeyError, and
        InvalidDocumentError when the value would pass its limit or the block is read-only."""
        check_str("content", content)

        def added(block: Document) -> dict[str, Any]:
            _check_writable(block)
            return {"value": f"{block['value']}\n{content}" if block["value"] else content}

        return self._change(label, (session_id, user_id, role_name), added, tx)

    def replace(
        self,
        label: str,
        old: str,
        new: str,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
        tx: Transaction | None = None,
    ) -> Document:
        """Replaces every occurrence of a text in the value of a block; the block after that. An
        empty `new` removes it. Raises as append(), and when the text does not occur."""
        check_str("new", new)

        def replaced(block: Document) -> dict[str, Any]:
            _check_writable(block)
            return {"value": replaced_text(f"block {label!r}", block["value"], old, new)}

        return self._change(label, (session_id, user_id, role_name), replaced, tx)

    def update(
        self,
        label: str,
        *,
        value: str | None = None,
        limit: int | None = None,
        description: str | None = None,
        read_only: bool | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
        tx: Transaction | None = None,
    ) -> Document:
        """Changes the given fields of a block, read-only or not; the block after that. Raises
        MissingKeyError, InvalidDocumentError."""
        fields = {
            "value": value,
            "limit": limit,
            "description": description,
            "read_only": read_only,
        }
        given = {name: field for name, field in fields.items() if field is not None}
        return self._change(label, (session_id, user_id, role_name), lambda _: given, tx)

    def delete(
        self,
        label: str,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
        tx: Transaction | None = None,
    ) -> None:
        """Deletes a block of this owner, and none that a session merely sees. Raises
        MissingKeyError."""
        scope, owner = _owner(session_id, user_id, role_name)
        check_name("label", label)

        def delete(tx: Transaction) -> None:
            if not tx[self._name].delete(_id(scope, owner, label)):
                raise self._missing(tx, label, scope, owner)

        in_transaction(self._db, tx, delete)

    # -- for AgentContext --------------------------------------------------------------------

    def seen(self, at: Snapshot | Transaction | Database, session: Document) -> list[Document]:
        """The blocks that a session sees, the farthest first; of one label the nearest."""
        if not len(at[self._name]):  # a count, and an append asks for it each time
            return []
        ids = (session["role_name"], session["user_id"], session["id"])
        owners = [f"{scope}:{id}" for scope, id in zip(_SCOPES, ids, strict=True)]
        found = at[self._name].find({"owner": {"$in": owners}}, limit=None)
        found.sort(key=lambda block: (owners.index(block["owner"]), block["label"]))
        blocks: dict[str, Document] = {}
        for block in found:
            blocks.pop(block["label"], None)
            blocks[block["label"]] = block
        return [*blocks.values()]

    def tokens(self, at: Snapshot | Transaction | Database, session: Document) -> int:
        """The tokens of the blocks that a session sees."""
        return sum(self.token_count(block) for block in self.seen(at, session))

    def token_count(self, block: Document) -> int:
        """The tokens of a block as a model gets it."""
        return self._sessions.count_tokens(shown(block))

    # -- inside ------------------------------------------------------------------------------

    def _of(self, at: Snapshot | Transaction | Database, scope: str, owner: str) -> list[Document]:
        where = {"owner": f"{scope}:{owner}"}
        return at[self._name].find(where, order_by="label", limit=None)

    def _found(
        self,
        at: Snapshot | Transaction,
        label: str,
        session_id: str | None,
        user_id: str | None,
        role_name: str | None,
    ) -> tuple[Document, Document | None]:
        """The block, and the session through which it was named. Raises MissingKeyError."""
        check_name("label", label)
        scope, owner = _owner(session_id, user_id, role_name)
        session = self._session(at, scope, owner)
        owners = [(scope, owner)]
        if session is not None:
            owners += [("user", session["user_id"]), ("role", session["role_name"])]
        for each in owners:
            block: Document | None = at[self._name].get(_id(*each, label))
            if block is not None:
                return {**_DEFAULTS, **block}, session
        raise self._missing(at, label, scope, owner)

    def _session(self, at: Snapshot | Transaction, scope: str, owner: str) -> Document | None:
        """The session that is the owner, or None. Raises MissingKeyError when the owner is not
        there; a role needs no settings to have blocks."""
        if scope == "user":
            self._sessions.live_user(at, owner)
        return self._sessions.live(at, owner) if scope == "session" else None

    def _missing(
        self, at: Snapshot | Transaction, label: str, scope: str, owner: str
    ) -> MissingKeyError:
        labels = [block["label"] for block in self._of(at, scope, owner)]
        if scope == "session":
            labels = [block["label"] for block in self.seen(at, self._sessions.live(at, owner))]
        known = f"it has {', '.join(map(repr, labels))}" if labels else "it has none"
        return MissingKeyError(
            f"there is no block {label!r} of the {scope} {owner!r}: {known}; create() makes one",
            collection=self._name,
            key=label,
        )

    def _change(
        self,
        label: str,
        owner: tuple[str | None, str | None, str | None],
        change: Callable[[Document], Mapping[str, Any]],
        tx: Transaction | None,
    ) -> Document:
        def changed(tx: Transaction) -> Document:
            block, session = self._found(tx, label, *owner)
            block |= {**change(block), "updated_at": self._sessions.now()}
            self._check(tx, block, session)
            tx[self._name].put(block)
            return block

        return in_transaction(self._db, tx, changed)

    def _check(self, tx: Transaction, block: Document, session: Document | None) -> None:
        """Raises InvalidDocumentError for a block that cannot be stored, or that does not fit the
        budget of the session through which it is changed."""
        for field in ("value", "description"):
            check_str(field, block[field])
        limit, count = block["limit"], len(block["value"])
        if type(limit) is not int or limit < 1:
            raise InvalidDocumentError(
                f"limit must be an int above 0, not {limit!r}", field="limit"
            )
        if count > limit:
            raise InvalidDocumentError(
                f"block {block['label']!r} would have {count} characters, and its limit is "
                f"{limit}: shorten it, or raise the limit with update()",
                field="value",
            )
        if session is None:
            return
        others = [each for each in self.seen(tx, session) if each["label"] != block["label"]]
        needed = sum(self.token_count(each) for each in [*others, block])
        room = room_beside_newest(session)
        if needed > room:
            raise InvalidDocumentError(
                f"the memory blocks would have {needed} tokens, and the budget of the session "
                f"leaves {room}: shorten them, or call set_token_budget()",
                field="value",
            )


_DEFAULTS: Final[Mapping[str, Any]] = {"limit": LIMIT, "description": "", "read_only": False}
"""Of a block that another program put."""


def shown(block: Document) -> str:
    """A block as a model gets it."""
    about = block.get("description")
    head = f"{block['label']} description={dumps(about)}" if about else block["label"]
    return f"<{head}>\n{block['value']}\n</{block['label']}>"


def replaced_text(what: str, text: str, old: str, new: str) -> str:
    """The text with every occurrence of `old` replaced. Raises InvalidDocumentError when there is
    none."""
    check_name("old", old)
    if old not in text:
        raise InvalidDocumentError(
            f"{what} does not contain {old!r}: give the exact text that is to be replaced",
            field="old",
        )
    return text.replace(old, new)


def _owner(session_id: str | None, user_id: str | None, role_name: str | None) -> tuple[str, str]:
    """The scope and the id of an owner. Raises QueryError unless one is given."""
    given = having(role=role_name, user=user_id, session=session_id)
    if len(given) != 1:
        raise QueryError("a block has one owner: give session_id, user_id or role_name")
    return next(iter(given.items()))


def _id(scope: str, owner: str, label: str) -> str:
    """The id of a block, whatever the length of its parts."""
    return hashlib.sha256(dumps([scope, owner, label]).encode("utf-8", "surrogatepass")).hexdigest()


def _check_writable(block: Document) -> None:
    if block["read_only"]:
        raise InvalidDocumentError(
            f"block {block['label']!r} is read-only: the program changes it with update()",
            field="read_only",
        )
