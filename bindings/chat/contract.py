"""The contract of a sink of chat turns, as a class of tests to inherit:

    class TestMySink(SinkContract):
        def make(self) -> Sink:
            return MySink(...)

pytest runs the methods; this module does not import it. `make` returns an empty sink.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from amberdb import Document
from amberdb.chat.sinks import Sink, can_delete, can_list, can_search

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def turn(number: int, **changes: Any) -> Document:
    """A turn of these tests: one a minute, of two conversations and two users."""
    return {
        "id": f"turn_{number}",
        "conversation_id": f"conversation {number % 2}",
        "user_id": f"user {number % 2}",
        "user_message": f"\u7b2c{number}\u53e5 umbrella",
        "assistant_message": f"answer {number}",
        "position": 1_000 + number,
        "created_at": START + timedelta(minutes=number),
        "token_count": 7,
        **changes,
    }


def ids(turns: Sequence[Document]) -> list[str]:
    """The ids of turns."""
    return [each["id"] for each in turns]


class SinkContract(ABC):
    """Subclass it, and implement make()."""

    _made: list[Sink]

    @abstractmethod
    def make(self) -> Sink:
        """A new, empty sink. One that has a method close() is closed after the test."""

    def poisoned(self, number: int) -> Document | None:
        """A turn that the sink refuses; None where it takes every turn."""
        return None

    def setup_method(self) -> None:
        """Called by pytest before each test."""
        self._made = []

    def teardown_method(self) -> None:
        """Called by pytest after each test."""
        for sink in self._made:
            if callable(close := getattr(sink, "close", None)):
                close()

    def _sink(self) -> Sink:
        self._made.append(self.make())
        return self._made[-1]

    def test_what_is_stored_comes_back_equal(self) -> None:
        sink = self._sink()
        turns = [
            turn(0, user_message="\u5f15\u7528 ' \" \\ % \n \U0001f600", assistant_message=""),
            turn(2, user_message="nul \0 \x10 end", assistant_message=None),
            turn(4, numbers=[1.0, 1e16, 1e300, -0.0, 5e-324, 2**63 - 1, -(2**63)], none=None),
            turn(6, messages=[{"role": "tool", "content": [{"\0": b"\0"}]}], at=START, empty={}),
            turn(8, escapes=[{"$date": "x"}, {"$amber": ["float", "1"]}, {"$map": {}}]),
        ]
        assert not sink.store(turns)
        found = sink.load("conversation 0", 10, None)
        assert found == turns[::-1]
        assert repr(found[2]["numbers"]) == repr(turns[2]["numbers"])

    def test_a_turn_stored_twice_is_there_once(self) -> None:
        sink = self._sink()
        sink.store([turn(0), turn(2)])
        sink.store([turn(2, assistant_message="corrected"), turn(0)])
        found = sink.load("conversation 0", 10, None)
        assert ids(found) == ["turn_2", "turn_0"]
        assert found[0]["assistant_message"] == "corrected"

    def test_a_turn_stored_again_in_another_conversation_is_there_alone(self) -> None:
        sink = self._sink()
        sink.store([turn(0), turn(2)])
        sink.store([turn(2, conversation_id="another", user_id="another")])
        assert ids(sink.load("conversation 0", 10, None)) == ["turn_0"]
        assert ids(sink.load("another", 10, None)) == ["turn_2"]
        if can_list(sink):
            assert ids(list(sink.turns(user_id="user 0"))) == ["turn_0"]

    def test_a_batch_with_a_turn_twice_has_the_later_one(self) -> None:
        sink = self._sink()
        sink.store([turn(0), turn(2), turn(0, assistant_message="later")])
        found = sink.load("conversation 0", 10, None)
        assert [each["assistant_message"] for each in found] == ["answer 2", "later"]

    def test_a_turn_that_is_refused_is_named_and_the_others_are_kept(self) -> None:
        sink = self._sink()
        poison = self.poisoned(50)
        if poison is None:
            return
        batch = [turn(number) for number in range(100)]
        batch[50] = poison
        refused = sink.store(batch)
        assert list(refused) == [poison["id"]]
        assert refused[poison["id"]]
        kept = [*sink.load("conversation 0", 100, None), *sink.load("conversation 1", 100, None)]
        assert sorted(ids(kept)) == sorted(ids(batch[:50] + batch[51:]))

    def test_the_last_turns_come_first_and_before_leaves_out_later_ones(self) -> None:
        sink = self._sink()
        sink.store([turn(number) for number in (4, 0, 8, 2, 6)])
        assert ids(sink.load("conversation 0", 3, None)) == ["turn_8", "turn_6", "turn_4"]
        before = START + timedelta(minutes=4)
        assert ids(sink.load("conversation 0", 2, before)) == ["turn_4", "turn_2"]
        just = before - timedelta(microseconds=1)
        assert ids(sink.load("conversation 0", 9, just)) == ["turn_2", "turn_0"]
        assert sink.load("conversation 0", 9, START - timedelta(days=1)) == []
        assert sink.load("nowhere", 9, None) == []

    def test_the_order_is_that_of_positions_whatever_the_times_are(self) -> None:
        sink = self._sink()
        back = turn(2, created_at=START - timedelta(days=3))
        sink.store([turn(0), back, turn(4, created_at=START.replace(year=1))])
        assert ids(sink.load("conversation 0", 9, None)) == ["turn_4", "turn_2", "turn_0"]

    def test_conversations_whose_names_look_alike_are_apart(self) -> None:
        sink = self._sink()
        names = ["c", "C", "c ", " c", "\u00e9", "e\u0301", "%", "_", "c\0", "\u4f1a" * 300]
        sink.store(
            [turn(0, id=f"t{n}", conversation_id=name) for n, name in enumerate(names)]
            + [turn(0, id=name, conversation_id="ids") for name in ("t", "T", "t ")]
        )
        for number, name in enumerate(names):
            assert ids(sink.load(name, 9, None)) == [f"t{number}"]
        assert set(ids(sink.load("ids", 9, None))) == {"t", "T", "t "}

    def test_a_long_text_is_whole(self) -> None:
        sink = self._sink()
        long = turn(
            0, user_message="\u96e8\u4f1e umbrella. " * 6_000, assistant_message="x" * 60_000
        )
        assert not sink.store([long])
        assert sink.load("conversation 0", 1, None) == [long]

    def test_no_turns_are_nothing(self) -> None:
        sink = self._sink()
        assert not sink.store([])
        assert sink.load("conversation 0", 5, None) == []

    def test_threads_lose_nothing(self) -> None:
        sink = self._sink()

        def store(thread: int) -> None:
            for start in range(0, 40, 10):
                some = range(start, start + 10)
                sink.store([turn(2 * n, id=f"{thread} {n}", position=n) for n in some])
                sink.load("conversation 0", 5, None)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store, range(4)))
        found = sink.load("conversation 0", 1_000, None)
        assert sorted(ids(found)) == sorted(f"{t} {n}" for t in range(4) for n in range(40))

    def test_listing_by_conversation_and_user(self) -> None:
        sink = self._sink()
        turns = [turn(number, user_id=f"user {number % 3}") for number in range(1_100)]
        sink.store(turns[::-1])
        if not can_list(sink):
            return
        assert list(sink.turns()) == turns
        assert list(sink.turns(conversation_id="conversation 1")) == turns[1::2]
        assert list(sink.turns(user_id="user 2")) == turns[2::3]
        both = sink.turns(conversation_id="conversation 1", user_id="user 2")
        assert list(both) == turns[5::6]

    def test_deleting_turns(self) -> None:
        sink = self._sink()
        sink.store([turn(number) for number in range(10)])
        if not can_delete(sink):
            return
        assert sink.delete(["turn_0", "turn_3", "nowhere"]) == 2
        assert sink.delete(["turn_0"]) == 0
        assert sink.delete([]) == 0
        assert ids(list(sink.turns())) == [f"turn_{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)]

    def test_searching_words(self) -> None:
        sink = self._sink()
        sink.store([turn(number) for number in range(4)])
        sink.store([turn(5, user_message="\u6211\u4eec\u4e0b\u5348\u5f00\u4f1a, umbrellas?")])
        if not can_search(sink):
            return

        def found(text: str, **where: str) -> list[str]:
            return ids([each for _, each in sink.search(text, None, where, 10)])

        assert found("\u5f00\u4f1a") == ["turn_5"]
        assert found("umbrella \u4e0b\u5348")[0] == "turn_5"
        assert len(found("Umbrella")) == 5
        assert set(found("umbrella", user_id="user 0")) == {"turn_0", "turn_2"}
        assert found("answer umbrella", conversation_id="conversation 0", user_id="user 1") == []
        assert found("nowhere") == []
        assert len(sink.search("umbrella", None, {}, 2)) == 2
