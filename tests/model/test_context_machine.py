"""Agent context against a list of messages per session: order, positions, tokens and budget hold,
and every message is in the queue or in recall storage, whatever the summary hook does and whenever
the database is reopened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import amberdb
from amberdb import Database, Document, InvalidDocumentError, MissingKeyError
from amberdb.context import AgentContext
from amberdb.context import overflow as overflow_module
from amberdb.context.types import DEPENDENT, SESSIONS, USERS
from support import slices
from support.databases import SMALL, FakeClock, assert_sound

USER = "lin"
sessions = st.sampled_from(["s0", "s1", "s2"])
sizes = st.integers(1, 12)
budgets = st.integers(8, 40)
roles = st.sampled_from(["user", "assistant", "tool"])


@dataclass
class Session:
    """What is known of one."""

    budget: int
    said: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Role and size, by position."""
    parts: dict[str, int] = field(default_factory=lambda: {"system": 0, "working": 0})
    summarized: int = 0

    @property
    def fixed(self) -> int:
        return sum(self.parts.values())

    def fits(self, size: int) -> bool:
        """A newest message, beside what stands once."""
        return self.fixed + size <= self.budget

    @property
    def newest(self) -> int:
        return self.said[-1][1] if self.said else 0


class ContextMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.clock = FakeClock()
        self.known: dict[str, Session] = {}
        self.block = 0
        """The tokens of the user's memory block as a model gets it; 0: there is none."""
        self.is_hook_down = False
        self.limit = patch.object(overflow_module, "MOVE_MAX", 3)
        self.limit.start()
        self.db, self.context = self.opened()
        self.context.sessions.create_user(USER, user_id=USER)

    def opened(self) -> tuple[Database, AgentContext]:
        path = Path(self.directory.name) / "c.amber"
        db = amberdb.open(path, clock=self.clock, sync="os", **SMALL)
        context = AgentContext(
            db,
            keep=0.6,
            count_tokens=lambda text: len(text.split()),
            summarize=self.summarize,
            clock=self.clock,
        )
        vars(context.sessions)["_batch"] = 5
        return db, context

    def summarize(self, summary: str, messages: Sequence[Document]) -> str:
        """How many messages it was told of, ever."""
        if self.is_hook_down:
            raise ConnectionError
        count = int(summary or 0)
        assert [each["position"] for each in messages] == list(range(count, count + len(messages)))
        return str(count + len(messages))

    def teardown(self) -> None:
        self.limit.stop()
        assert_sound(self.db)
        self.db.close()
        self.directory.cleanup()

    # -- steps -------------------------------------------------------------------------------

    @rule(id=sessions, budget=budgets)
    def create(self, id: str, budget: int) -> None:
        if id not in self.known:
            self.context.sessions.create(USER, "helper", session_id=id, token_budget=budget)
            self.known[id] = Session(budget)

    @rule(id=sessions, drawn=st.lists(st.tuples(roles, sizes), min_size=1, max_size=4))
    def extend(self, id: str, drawn: list[tuple[str, int]]) -> None:
        messages = [{"role": role, "content": " ".join(["w"] * size)} for role, size in drawn]
        session = self.known.get(id)
        if session is None:
            with pytest.raises(MissingKeyError):
                self.context.extend(id, messages)
        elif not all(session.fits(size) for _, size in drawn):
            with pytest.raises(InvalidDocumentError):
                self.context.extend(id, messages)
        else:
            told = self.context.extend(id, messages)
            assert told.first_position == len(session.said)
            session.said += drawn
            self.clock.advance(1)
            self.has_room(id)

    @rule(id=sessions, part=st.sampled_from(["system", "working"]), size=st.integers(0, 15))
    def set_part(self, id: str, part: Any, size: int) -> None:
        session = self.known.get(id)
        if session is None:
            return
        change = self.context.set_system if part == "system" else self.context.set_working
        text = " ".join(["w"] * size)
        if session.fixed - session.parts[part] + size + session.newest > session.budget:
            with pytest.raises(InvalidDocumentError):
                change(id, text)
        else:
            change(id, text)
            session.parts[part] = size
            self.has_room(id)

    @rule(size=st.integers(0, 15))
    def set_block(self, size: int) -> None:
        """Of the user: no session is asked, and each makes room with its next change."""
        blocks = self.context.blocks
        if not self.block:
            blocks.create("notes", user_id=USER)
        blocks.update("notes", value=" ".join(["w"] * size), user_id=USER)
        self.block = size + 2  # with its tags

    @rule(id=sessions, budget=budgets)
    def set_budget(self, id: str, budget: int) -> None:
        session = self.known.get(id)
        if session is None:
            return
        if session.fixed + session.newest > budget:
            with pytest.raises(InvalidDocumentError):
                self.context.set_token_budget(id, budget)
        else:
            self.context.set_token_budget(id, budget)
            session.budget = budget
            self.has_room(id)

    @rule()
    def hook_goes_down_or_comes_back(self) -> None:
        self.is_hook_down = not self.is_hook_down

    @rule(id=sessions)
    def overflow(self, id: str) -> None:
        if id in self.known and not self.is_hook_down:
            self.context.overflow(id)
            self.has_room(id)

    @rule(id=sessions)
    def delete(self, id: str) -> None:
        if id in self.known:
            receipt = self.context.sessions.delete(id)
            assert receipt.documents >= len(self.known.pop(id).said)

    @rule(id=sessions)
    def die_in_the_middle_of_a_deletion(self, id: str) -> None:
        if id not in self.known:
            return
        with patch.object(self.context.sessions, "purge", lambda: 0):
            self.context.sessions.delete(id)
        del self.known[id]
        self.reopen()
        if id in self.db.collection(SESSIONS):
            with pytest.raises(MissingKeyError):
                self.context.render(id)
        self.context.sessions.purge()

    @rule()
    def delete_the_user(self) -> None:
        assert self.context.sessions.delete_user(USER).sessions == len(self.known)
        self.known.clear()
        self.block = 0
        assert len(self.db.collection(USERS)) == 0
        self.context.sessions.create_user(USER, user_id=USER)

    @rule()
    def checkpoint(self) -> None:
        self.db.checkpoint()

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db, self.context = self.opened()

    # -- what is right -----------------------------------------------------------------------

    def has_room(self, id: str) -> None:
        """With a hook that answers, an overflow is over when this is asked."""
        if not self.is_hook_down:
            queue = self.context.queue(id, limit=None)
            used = self.context.sessions.get(id)
            tokens = sum(each["token_count"] for each in queue) + used["summary_tokens"]
            tokens += self.known[id].fixed + self.block
            assert len(queue) <= 1 or tokens <= self.known[id].budget

    @invariant()
    def every_message_is_in_one_place_and_in_order(self) -> None:
        for id, session in self.known.items():
            queue = self.context.queue(id, limit=None)
            recall = self.context.external.recall(id, limit=None)
            found = [*recall[::-1], *queue]
            assert [each["position"] for each in found] == list(range(len(session.said)))
            assert [(each["role"], len(each["content"].split())) for each in found] == session.said
            assert int(self.context.part(id, "summary") or 0) == len(recall)
            state = self.context.sessions.get(id)
            assert state["queue_tokens"] == sum(size for _, size in session.said[len(recall) :])
            assert not session.said or queue, "the newest message stays"

    @invariant()
    def what_a_model_is_shown_fits_and_ends_with_the_newest(self) -> None:
        for id, session in self.known.items():
            shown = self.context.render(id)
            tokens = sum(len(each["content"].split()) for each in shown)
            assert tokens <= session.budget
            messages = shown[1:] if shown and shown[0]["role"] == "system" else shown
            told = [(each["role"], len(each["content"].split())) for each in messages]
            assert told == session.said[len(session.said) - len(told) :]
            if self.block and session.fixed + self.block + session.newest <= session.budget:
                assert "<notes>" in shown[0]["content"]
            assert not told or told[0][0] != "tool"
            assert told or not session.said or session.said[-1][0] == "tool"

    @invariant()
    def nothing_hangs_on_nobody(self) -> None:
        for name in DEPENDENT:
            for each in self.db.collection(name).documents():
                assert each.get("session_id") in {*self.known, None}
                assert "session_id" in each or each["user_id"] == USER


TestContext = ContextMachine.TestCase
TestContext.settings = settings(max_examples=slices.examples(1, 0.35), stateful_step_count=30)
TestContext = pytest.mark.sliced(pytest.mark.slow(TestContext))
