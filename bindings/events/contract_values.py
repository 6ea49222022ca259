"""The contract of a store of events: every value comes back as it was, and is told from others.

The risks are those of stores that compare by a collation, keep data as JSON, or times as numbers.

Invariants:
- pytest runs the tests; this module does not import it.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

from amberdb._shared.equality import equal_in_type
from amberdb.events.contract_base import START, StoreContract, assert_same, event, ids
from amberdb.events.store import EventStore

_ALIKE = [
    "s",
    "S",
    "s ",
    " s",
    "s\t",
    "\u015b",
    "s\u0301",
    "\u00e9",
    "e\u0301",
    "\uff53",
    "s\u200b",
]
"""Other letters, cases, white space and accents, composed and not: each is another text."""
_LONG = ["x" * 299 + "y", "x" * 299 + "z", "\u4f1a" * 299 + "\u8bae", "\u4f1a" * 299 + "\u8bdd"]
"""Of 300 characters; two and two differ in the last one."""
_MICROSECOND = timedelta(microseconds=1)


class ValuesContract(StoreContract):
    """Texts, numbers and times."""

    def test_event_ids_that_look_alike_are_events_of_their_own(self) -> None:
        async def work(store: EventStore) -> None:
            wanted = [event(n, event_id=text) for n, text in enumerate(_ALIKE)]
            assert await store.store_many(wanted) == len(wanted)
            assert_same(await store.retrieve(oldest_first=True), wanted)
            assert (await store.get_stats())["total_events"] == len(wanted)
            again = event(50, event_id="S", data={"stored": "again"})
            await store.store(again)
            others = [each for each in wanted if each.event_id != "S"]
            assert_same(await store.retrieve(oldest_first=True), [*others, again])

        self.run(work)

    def test_session_ids_that_look_alike_are_told_apart(self) -> None:
        self.run(lambda store: _check_apart(store, "session_id", _ALIKE))

    def test_agent_names_that_look_alike_are_told_apart(self) -> None:
        self.run(lambda store: _check_apart(store, "agent_name", _ALIKE))

    def test_texts_with_a_nul_are_told_apart(self) -> None:
        self._assert_apart(["a", "a\0", "a\0b", "\0", "\0a"])

    def test_a_long_session_id_is_kept_whole(self) -> None:
        self.run(lambda store: _check_apart(store, "session_id", _LONG))

    def test_a_long_agent_name_is_kept_whole(self) -> None:
        self.run(lambda store: _check_apart(store, "agent_name", _LONG))

    def test_a_long_event_id_is_kept_whole(self) -> None:
        self.run(lambda store: _check_event_ids(store, _LONG))

    def test_texts_that_are_operators_elsewhere_are_only_texts(self) -> None:
        texts = ["%", "_", "s_", "s%", "*", "?", "'", '"', "\\", "';--", "{}", "$ne", "..", "/"]
        self._assert_apart(texts)

    def test_numbers_come_back_with_their_type_and_sign(self) -> None:
        self._assert_kept(
            {
                "floats": [0.0, -0.0, 1.0, -1.0, 1e15, 1e16, 1e17, 1e22, 1e300, 0.1 + 0.2],
                "extremes": [5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308],
                "ints": [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)],
                "bools": [True, False, 1, 0],
                "alone": -0.0,
                "infinities": [math.inf, -math.inf],
            }
        )

    def test_a_number_that_is_stored_again_in_another_type_has_it(self) -> None:
        async def work(store: EventStore) -> None:
            for value in (1, 1.0, True, "1", None, 0.0, -0.0):
                one = event(0, data={"value": value})
                await store.store(one)
                assert_same(await store.retrieve(), [one])

        self.run(work)

    def test_texts_come_back_whole(self) -> None:
        self._assert_kept(
            {
                "nul": ["\0", "a\0b", "end\0"],
                "emoji": "\U0001f600 \U0001f469\u200d\U0001f4bb \U0010ffff",
                "accents": ["\u00e9", "e\u0301"],
                "spaces": ["", " ", "a ", " a", "\n", "\r\n", "\t", "\u2028\u2029\u0085"],
                "quotes": ["'", '"', "''", "\\", "\\n", "\\u0000", "`", "%s", "?", ":a", "$1"],
                "looks like another": ["null", "true", "1", "1.0", "NaN", "{}", "2026-03-01"],
                "no characters": ["\ufeff", "\ufffe", "\uffff", "\x7f", "\x1b"],
                "long": "\u4f1a" * 20_000,
            }
        )

    def test_keys_of_any_text_come_back(self) -> None:
        keys = ["", " ", ".", "a.b", "$", "$date", "$ne", "'", '"', "\\", "a\0b", "\0", "\u4f1a"]
        keys += ["a", "A", "a ", "\u00e9", "e\u0301", "\U0001f600", "[0]", "0", "id", "k" * 3000]
        together = {key: number for number, key in enumerate(keys)}
        self._assert_kept(together, *({key: {key: key}} for key in keys))

    def test_maps_that_look_like_an_escape_come_back(self) -> None:
        names = ("$date", "$bytes", "$float", "$vector", "$map")
        values: list[Any] = [
            "x",
            "inf",
            "2026-03-01T00:00:00Z",
            "aGk=",
            1,
            None,
            {},
            {"$date": "x"},
        ]
        self._assert_kept(
            *({"in": {name: value}, name: value} for name in names for value in values),
            *({name: value} for name in names for value in values),
            *({name: {inner: {name: "x"} for inner in names}} for name in names),
        )

    def test_bytes_times_and_what_is_empty_come_back(self) -> None:
        zone = timezone(timedelta(hours=8))
        self._assert_kept(
            {
                "bytes": [b"", b"\0", bytes(range(256)), b"text"],
                "times": [
                    START,
                    datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=zone),
                    datetime(1, 1, 2, tzinfo=zone),
                    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
                    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
                ],
                "empty": [None, {}, [], "", [[]], [{}], {"": None}],
                "none": None,
            },
            {},
        )

    def test_deep_data_comes_back(self) -> None:
        maps: Any = "bottom"
        lists: Any = "bottom"
        escapes: Any = "bottom"
        for _ in range(44):
            maps, lists, escapes = {"in": maps}, [lists], {"$map": escapes}
        self._assert_kept({"in": maps}, {"in": lists}, {"in": escapes}, {"in": [maps, escapes]})

    def test_the_first_and_the_last_moment_come_back_and_are_filtered(self) -> None:
        first, last = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))
        moments = [first, first + _MICROSECOND, last - _MICROSECOND, last]
        moments += [first + timedelta(days=300_000), last - timedelta(days=300_000)]
        self.run(lambda store: _check_filters(store, sorted(moments)))

    def test_times_are_filtered_to_the_microsecond(self) -> None:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        moments = [start + n * _MICROSECOND for start in (epoch, START) for n in range(-2, 3)]
        self.run(lambda store: _check_filters(store, moments))

    def test_times_of_any_zone_are_the_same_moment(self) -> None:
        async def work(store: EventStore) -> None:
            for hours in (8, -11.5, 14, -12, 5.75):
                zone = timezone(timedelta(hours=hours))
                local = datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=zone)
                one = event(0, timestamp=local, data={"at": local})
                assert one.timestamp == one.data["at"] == local
                await store.store(one)
                assert_same(await store.retrieve(), [one])
                assert ids(await store.retrieve(start_time=local)) == ["evt_0"]
                assert ids(await store.retrieve(end_time=local + _MICROSECOND)) == ["evt_0"]
                assert await store.retrieve(end_time=local) == []
                assert await store.retrieve(start_time=local + _MICROSECOND) == []
                stats = await store.get_stats()
                assert stats["first_event"] == stats["last_event"] == local

        self.run(work)

    # -- what the tests have in common -------------------------------------------------------

    def _assert_apart(self, texts: list[str]) -> None:
        async def work(store: EventStore) -> None:
            await _check_apart(store, "session_id", texts)
            await _check_apart(store, "agent_name", texts)
            await _check_event_ids(store, texts)

        self.run(work)

    def _assert_kept(self, *values: dict[str, Any]) -> None:
        """Each as data and as metadata, by every way to read it."""

        async def work(store: EventStore) -> None:
            wanted = [event(n, data=each, metadata=each) for n, each in enumerate(values)]
            for one, each in zip(wanted, values, strict=True):
                assert equal_in_type(one.data, _in_utc(each)), "an event replaces no such value"
            await store.store_many(wanted)
            assert_same(await store.retrieve(limit=None, oldest_first=True), wanted)
            assert_same(await store.retrieve(limit=1), wanted[-1:])
            by_id = {each.event_id: each for each in await store.stored(wanted)}
            assert_same([by_id[each.event_id] for each in wanted], wanted)
            pages = [page async for page in store.iterate(batch=2)]
            assert_same([each for page in pages for each in page], wanted)

        self.run(work)


async def _check_apart(store: EventStore, name: str, texts: list[str]) -> None:
    """Two events of each text: all that takes filters tells them from those of the others."""
    count = len(texts)
    wanted = [event(n, **{name: texts[n % count]}) for n in range(2 * count)]
    await store.store_many(wanted)
    assert_same(await store.retrieve(limit=None, oldest_first=True), wanted)
    for n, text in enumerate(texts):
        by: Any = {name: text}
        own = [wanted[n], wanted[n + count]]
        assert_same(await store.retrieve(**by, oldest_first=True), own)
        assert_same(await store.retrieve(**by), own[::-1])
        assert_same([each async for page in store.iterate(**by) for each in page], own)
        assert (await store.get_stats(**by))["total_events"] == 2
        assert set(ids(await store.search("calculator", **by))) == set(ids(own))
        assert own[0].event_id in ids(await store.retrieve(**by, event_type=own[0].event_type))
        assert_same(await store.retrieve(**by, start_time=own[1].timestamp), own[1:])
    for n, text in enumerate(texts, 1):
        by = {name: text}
        assert await store.clear(**by) == 2
        assert (await store.get_stats())["total_events"] == 2 * (count - n)
        assert await store.clear(**by) == 0


async def _check_event_ids(store: EventStore, texts: list[str]) -> None:
    """An event of each id: each is there once, and is found by its id."""
    wanted = [event(n, event_id=text) for n, text in enumerate(texts)]
    assert await store.store_many(wanted) == len(wanted)
    assert_same(await store.retrieve(oldest_first=True), wanted)
    for n, each in enumerate(wanted):
        assert_same(await store.stored([each]), [each])
        wanted[n] = event(n, event_id=each.event_id, data={"stored": "again"})
        assert await store.store(wanted[n])
    assert_same(await store.retrieve(oldest_first=True), wanted)
    assert await store.clear() == len(wanted)


async def _check_filters(store: EventStore, moments: list[datetime]) -> None:
    """Filters by each of these moments, which ascend: the start is in, the end is out."""
    wanted = [event(n, timestamp=moment) for n, moment in enumerate(moments)]
    await store.store_many(wanted)
    assert_same(await store.retrieve(oldest_first=True), wanted)
    stats = await store.get_stats()
    assert (stats["first_event"], stats["last_event"]) == (moments[0], moments[-1])
    for n, moment in enumerate(moments):
        before = max(0, n - 1)
        assert_same(await store.retrieve(start_time=moment, oldest_first=True), wanted[n:])
        assert_same(await store.retrieve(end_time=moment, oldest_first=True), wanted[:n])
        both = await store.retrieve(start_time=moments[before], end_time=moment, oldest_first=True)
        assert_same(both, wanted[before:n])
        assert_same(await store.stored([wanted[n]]), [wanted[n]])
        found = await store.get_stats(start_time=moment)
        assert (found["total_events"], found["first_event"]) == (len(wanted) - n, moment)
    assert await store.clear(end_time=moments[2]) == 2
    assert_same(await store.retrieve(oldest_first=True), wanted[2:])


def _in_utc(value: Any) -> Any:
    """The value with its times in UTC, as events have them."""
    if isinstance(value, dict):
        return {name: _in_utc(item) for name, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_in_utc(item) for item in cast(Sequence[Any], value)]
    return value.astimezone(UTC) if isinstance(value, datetime) else value
