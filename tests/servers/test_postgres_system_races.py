"""The systems on a server, each from two processes at once, round by round: nothing is lost,
nothing is doubled, and no caller has to begin again (docs/remote-transactions.md).

Invariants:
- No outcome of a round is a ConflictError, but for what the call itself says by one.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

import amberdb
from amberdb import Database, DuplicateKeyError
from amberdb.chat import ChatBuffer, CollectionSink
from amberdb.context import AgentContext
from amberdb.events import AgentEvent, AmberEventStore, EventType
from amberdb.graph import KnowledgeGraph
from amberdb.integrations.item_lists import ItemLists
from amberdb.memory import Memory, RuleExtractor
from amberdb.profiles import UserProfiles
from support.racing import Racers
from support.slices import size

ROUNDS = size(200, 20)
pytestmark = pytest.mark.sliced

Round = Callable[[int], Any]


@pytest.fixture(params=["url", "pooler_url"])
def either_url(request: pytest.FixtureRequest) -> str:
    """Of a new database, behind a pooler of transactions too."""
    url: str = request.getfixturevalue(request.param)
    return url


# -- profiles ----------------------------------------------------------------------------------


def profiles_of(db: Database) -> UserProfiles:
    return UserProfiles(db, history_days=7)


def save_profile(db: Database, side: int) -> Round:
    profiles = profiles_of(db)
    return lambda n: bool(profiles.save(f"u{n}", {"basic_info": {f"fact{side}": n}}))


def test_first_save_of_one_profile_from_two_sides(both: Racers, either_url: str) -> None:
    with amberdb.connect(either_url) as db:
        profiles = profiles_of(db)
        assert both.race(either_url, save_profile, ROUNDS) == [[True, True]] * ROUNDS
        for n in range(ROUNDS):
            profile = profiles.get(f"u{n}")
            assert profile is not None
            assert profile["basic_info"] == {"fact0": n, "fact1": n}
            entries = profiles.history(f"u{n}")
            assert [(each["position"], each["action"]) for each in entries] == [
                (2, "update"),
                (1, "insert"),
            ]


def count_conversations(db: Database, side: int) -> Round:
    profiles = profiles_of(db)
    return lambda _: profiles.count_conversation("u")


def test_conversations_are_counted(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        profiles = profiles_of(db)
        counts = [
            count for counted in both.race(url, count_conversations, ROUNDS) for count in counted
        ]
        assert sorted(counts) == list(range(1, 2 * ROUNDS + 1))
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(profiles.count_conversation, "v") for _ in range(200)]:
                done.result()
        found = [profiles.get(id) for id in "uv"]
        assert [each and each["conversation_count"] for each in found] == [2 * ROUNDS, 200]


def undo_profile(db: Database, side: int) -> Round:
    """One takes changes back, the other one makes more."""
    profiles = profiles_of(db)

    def do(n: int) -> bool:
        if side:
            profiles.save("u", {"basic_info": {"a": n}})
        else:
            (newest,) = profiles.history("u", limit=1)
            profiles.undo(newest["id"])
        return True

    return do


def test_profile_is_undone_beside_changes(both: Racers, url: str) -> None:
    """An undo that comes too late is refused: its fields were changed since."""
    with amberdb.connect(url) as db:
        profiles = profiles_of(db)
        profiles.save("u", {"basic_info": {"b": 1}})
        for undone, saved in both.race(url, undo_profile, ROUNDS):
            assert saved is True
            assert undone is True or undone.startswith("ConflictError: the profile of 'u' was")
        entries = profiles.history("u", limit=3 * ROUNDS)
        positions = [each["position"] for each in entries]
        assert positions == list(range(len(positions), 0, -1))
        for later, former in pairwise(entries):
            assert former["after"] is None or later["before"]["basic_info"] == (
                former["after"].get("basic_info", later["before"]["basic_info"])
            )


# -- graph ---------------------------------------------------------------------------------------


def graph_of(db: Database) -> KnowledgeGraph:
    return KnowledgeGraph(db, functional=["lives_in"])


def relate_both_ways(db: Database, side: int) -> Round:
    graph = graph_of(db)

    def do(n: int) -> list[str]:
        ends = [f"a{n}", f"b{n}"]
        for one, other in (ends, ends[::-1])[:: 1 if side else -1]:
            graph.relate(one, "knows", other)
        return []

    return do


def test_two_relations_of_one_pair(both: Racers, either_url: str) -> None:
    """Told by both sides, in both directions: each is there once."""
    with amberdb.connect(either_url) as db:
        graph = graph_of(db)
        for n in range(ROUNDS):
            for end in "ab":
                graph.add_entity(f"{end}{n}", "person", aliases=[f"{end}-{n}"])
        assert both.race(either_url, relate_both_ways, ROUNDS) == [[[], []]] * ROUNDS
        assert len(graph.relations(relation_type="knows", limit=None)) == 2 * ROUNDS


def relate_by_aliases(db: Database, side: int) -> Round:
    graph = graph_of(db)

    def do(n: int) -> list[str]:
        if side:
            graph.relate(f"a-{n}", "knows", f"b-{n}")
        else:
            graph.relate(f"b{n}", "knows", f"a{n}")
            graph.relate(f"a{n}", "knows", f"b{n}")
        return []

    return do


def test_relations_of_one_pair_by_aliases(both: Racers, url: str) -> None:
    """Who locks other names waits for the entities, in another order: it is run again."""
    with amberdb.connect(url) as db:
        graph = graph_of(db)
        for n in range(ROUNDS):
            for end in "ab":
                graph.add_entity(f"{end}{n}", "person", aliases=[f"{end}-{n}"])
        assert both.race(url, relate_by_aliases, ROUNDS) == [[[], []]] * ROUNDS
        assert len(graph.relations(relation_type="knows", limit=None)) == 2 * ROUNDS


def move_house(db: Database, side: int) -> Round:
    graph = graph_of(db)
    return lambda n: bool(graph.relate(f"p{n}" if side else f"p-{n}", "lives_in", f"c{side}"))


def test_functional_relations_of_one_source(both: Racers, url: str) -> None:
    """A source lives in one place at a time, whoever was told last, by which name ever."""
    with amberdb.connect(url) as db:
        graph = graph_of(db)
        for city in ("c0", "c1"):
            graph.add_entity(city, "city")
        for n in range(ROUNDS):
            graph.add_entity(f"p{n}", "person", aliases=[f"p-{n}"])
        assert both.race(url, move_house, ROUNDS) == [[True, True]] * ROUNDS
        for n in range(ROUNDS):
            former, latter = graph.relations(source=f"p{n}", as_of="ever", limit=None)
            if former["valid_from"] is not None:
                former, latter = latter, former
            assert {former["target"], latter["target"]} == {"c0", "c1"}
            assert former["valid_to"] == latter["valid_from"] is not None
            assert latter["valid_to"] is None


def name_entity(db: Database, side: int) -> Round:
    """One knows the entity by a name that the other one has as an alias."""
    graph = graph_of(db)

    def do(n: int) -> str:
        aliases = [] if side else [f"x{n}"]
        name = f"x{n}" if side else f"e{n}"
        texts = [f"told by {side}"]
        entity = graph.add_entity(name, "person", observations=texts, aliases=aliases)
        return str(entity["id"])

    return do


def test_one_entity_by_two_names(both: Racers, url: str) -> None:
    """Either the alias was there first, and one entity has both observations, or it is refused."""
    with amberdb.connect(url) as db:
        graph = graph_of(db)
        for n, (one, other) in enumerate(both.race(url, name_entity, ROUNDS)):
            entity = graph.entity(f"x{n}")
            assert entity is not None
            if one == f"e{n}":
                assert entity["id"] == one == other
                assert sorted(entity["observations"]) == ["told by 0", "told by 1"]
                assert entity["aliases"] == [f"x{n}"]
            else:
                assert one.startswith(f"InvalidDocumentError: 'x{n}' is the entity")
                assert entity["id"] == other == f"x{n}"
                assert graph.entity(f"e{n}") is None


def take_alias(db: Database, side: int) -> Round:
    graph = graph_of(db)
    names = ["y", "z"] if side else ["z", "y"]

    def do(n: int) -> str:
        aliases = [f"{each}{n}" for each in names]
        return str(graph.add_aliases(f"p{side}", aliases)["id"])

    return do


def test_one_alias_of_two_entities(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        graph = graph_of(db)
        for side in range(2):
            graph.add_entity(f"p{side}", "person")
        for n, outcomes in enumerate(both.race(url, take_alias, ROUNDS)):
            (taken,) = (each for each in outcomes if each in ("p0", "p1"))
            (refused,) = (each for each in outcomes if each != taken)
            assert refused.startswith("InvalidDocumentError: ")
            for alias in (f"y{n}", f"z{n}"):
                (found,) = db["graph_entities"].find({"aliases": alias})
                assert found["id"] == taken


def merge_entities(db: Database, side: int) -> Round:
    """One makes two entities one, while the other one tells of it by an alias."""
    graph = graph_of(db)

    def do(n: int) -> str:
        if side:
            return str(graph.add_entity(f"x{n}", "person", observations=["more"])["id"])
        return str(graph.merge_entities(f"p{n}", f"q{n}")["id"])

    return do


def test_entities_are_merged_beside_what_is_told_of_them(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        graph = graph_of(db)
        for n in range(ROUNDS):
            graph.add_entity(f"p{n}", "person", aliases=[f"x{n}"])
            graph.add_entity(f"q{n}", "person")
        for n, (merged, told) in enumerate(both.race(url, merge_entities, ROUNDS)):
            assert merged == f"q{n}"
            assert told in (f"p{n}", f"q{n}")
            entity = graph.entity(f"x{n}")
            assert entity is not None
            assert entity["id"] == merged
            assert entity["observations"] == ["more"]
        assert db["graph_entities"].count() == ROUNDS


# -- context ---------------------------------------------------------------------------------------


def context_of(db: Database) -> AgentContext:
    return AgentContext(db, token_budget=150)


def find_user(db: Database, side: int) -> Round:
    sessions = context_of(db).sessions

    def do(n: int) -> str:
        if side and n % 2:
            try:
                return sessions.create_user(f"n{n}")
            except DuplicateKeyError:
                pass
        return sessions.find_or_create_user(f"n{n}")

    return do


def test_two_users_of_one_name(both: Racers, either_url: str) -> None:
    with amberdb.connect(either_url) as db:
        sessions = context_of(db).sessions
        for one, other in both.race(either_url, find_user, ROUNDS):
            assert one == other
        assert len(sessions.users(limit=None)) == ROUNDS


def append_messages(db: Database, side: int) -> Round:
    context = context_of(db)

    def do(n: int) -> list[Any]:
        appended = context.append("s", "user", f"message {n} of {side}")
        return [appended.first_position, appended.overflow_error]

    return do


def test_append_to_one_session(both: Racers, url: str) -> None:
    """Positions have no gaps, also while both sides move messages out of the queue."""
    with amberdb.connect(url) as db:
        context = context_of(db)
        user = context.sessions.create_user("lin")
        context.sessions.create(user, "tutor", session_id="s")
        outcomes = both.race(url, append_messages, ROUNDS)
        assert {error for each in outcomes for _, error in each} == {None}
        positions = sorted(position for each in outcomes for position, _ in each)
        assert positions == list(range(2 * ROUNDS))
        context.overflow("s")
        queue, past = context.queue("s", limit=None), context.external.recall("s", limit=None)
        found = {each["position"]: each["content"] for each in (*queue, *past)}
        assert len(found) == len(queue) + len(past) == 2 * ROUNDS
        assert set(found.values()) == {
            f"message {n} of {side}" for n in range(ROUNDS) for side in range(2)
        }
        session = context.sessions.get("s")
        assert session["first_position"] == len(past)
        assert session["queue_tokens"] == sum(each["token_count"] for each in queue)


def delete_session(db: Database, side: int) -> Round:
    context = context_of(db)

    def do(n: int) -> bool:
        if side:
            context.append(f"s{n}", "user", "one more")
        else:
            context.sessions.delete(f"s{n}")
        return True

    return do


def test_session_is_deleted_beside_an_append(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        context = context_of(db)
        user = context.sessions.create_user("lin")
        for n in range(ROUNDS):
            context.sessions.create(user, "tutor", session_id=f"s{n}")
            context.append(f"s{n}", "user", "hello")
        for deleted, appended in both.race(url, delete_session, ROUNDS):
            assert deleted is True
            assert appended is True or appended.startswith("MissingKeyError: there is no session")
        assert {name: db[name].count() for name in ("sessions", "main_context")} == {
            "sessions": 0,
            "main_context": 0,
        }


# -- chat ------------------------------------------------------------------------------------------


def save_turns(db: Database, side: int) -> Round:
    """The clocks stand still, and that of one side is an hour behind."""
    buffer = ChatBuffer(db, clock=lambda: 1_800_000_000 - 3600 * side)
    return lambda n: buffer.save_chat(f"{n}", "yes", "c", f"user{side}")["cid"]


def test_save_chat_to_one_conversation(both: Racers, url: str) -> None:
    """Turns are in the order of their commits, whatever the clocks of the machines are."""
    with amberdb.connect(url) as db:
        buffer = ChatBuffer(db)
        outcomes = both.race(url, save_turns, ROUNDS)
        turns = list(buffer.export(conversation_id="c"))
        assert len(turns) == len({turn["position"] for turn in turns}) == 2 * ROUNDS
        ids = [turn["id"] for turn in turns]
        rounds = [set(ids[at : at + 2]) for at in range(0, len(ids), 2)]
        assert rounds == [set(each) for each in outcomes]


def flush_turns(db: Database, side: int) -> Round:
    buffer = ChatBuffer(db, CollectionSink(db))
    return lambda n: buffer.flush(batch_size=3)["failed_count"]


def test_two_programs_flush_one_buffer(both: Racers, url: str) -> None:
    """Each turn is counted once, by one of them."""
    with amberdb.connect(url) as db:
        buffer = ChatBuffer(db, CollectionSink(db))
        for n in range(ROUNDS):
            buffer.save_chat(f"{n}", "yes", f"c{n % 7}", "lin")
        assert both.race(url, flush_turns, 5) == [[0, 0]] * 5
        assert buffer.get_stats()["pending_queue_length"] == 0
        records = db["chat_conversations"].find(limit=None)
        assert sum(record["turns"] for record in records) == ROUNDS
        assert sum(len(record["positions"]) for record in records) == ROUNDS


# -- memory --------------------------------------------------------------------------------------


def memory_of(db: Database) -> Memory:
    return Memory(db, extract=RuleExtractor())


def update_memory(db: Database, side: int) -> Round:
    memory = memory_of(db)
    return lambda n: memory.update("profile", "m", metadata={f"{side}-{n}": n}).memory_id


def test_update_of_one_memory(both: Racers, url: str) -> None:
    """Nothing is lost, and its log is one line of changes."""
    with amberdb.connect(url) as db:
        memory = memory_of(db)
        memory.remember("lin", "likes tea", memory_layer="profile", memory_id="m")
        assert both.race(url, update_memory, ROUNDS) == [["m", "m"]] * ROUNDS
        found = memory.get("profile", "m")
        assert found is not None
        assert found["metadata"] == {f"{s}-{n}": n for s in range(2) for n in range(ROUNDS)}
        history = memory.history("m")
        assert len({each["position"] for each in history}) == 2 * ROUNDS + 1
        for former, latter in pairwise(history):
            assert former["after"] == latter["before"]


def undo_change(db: Database, side: int) -> Round:
    memory = memory_of(db)

    def do(n: int) -> str:
        (inserted,) = memory.history(f"m{n}")[:1]
        return memory.undo(inserted["id"]).action

    return do


def test_undo_of_one_change(both: Racers, url: str) -> None:
    """One takes it back; the other one learns that it was changed since."""
    with amberdb.connect(url) as db:
        memory = memory_of(db)
        for n in range(ROUNDS):
            memory.remember("lin", f"likes {n}", memory_layer="profile", memory_id=f"m{n}")
        for n, outcomes in enumerate(both.race(url, undo_change, ROUNDS)):
            assert sorted(each.partition(":")[0] for each in outcomes) == [
                "ConflictError",
                "delete",
            ]
            assert len(memory.history(f"m{n}")) == 2
        assert len(memory.profile("lin")) == 0


def tell_fact(db: Database, side: int) -> Round:
    memory = memory_of(db)

    def do(n: int) -> str:
        (outcome,) = memory.remember(f"e{n}", "My name is Anna", auto_extract=True)
        return outcome.action

    return do


def test_one_fact_is_told_by_two(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        memory = memory_of(db)
        for n, outcomes in enumerate(both.race(url, tell_fact, ROUNDS)):
            assert sorted(outcomes) == ["ignore", "insert"]
            assert len(memory.profile(f"e{n}")) == 1


# -- events, and lists of integrations -----------------------------------------------------------


def store_events(db: Database, side: int) -> Round:
    store = AmberEventStore(db)

    def do(n: int) -> int:
        events = [
            AgentEvent(
                event_id=f"{side}-{n}-{each}",
                event_type=EventType.CUSTOM,
                timestamp=datetime.now(UTC),
                session_id="s",
                agent_name="a",
            )
            for each in range(2)
        ]
        return asyncio.run(store.store_many(events))

    return do


def test_events_of_two_programs(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        AmberEventStore(db)
        assert both.race(url, store_events, ROUNDS) == [[2, 2]] * ROUNDS
        events = db["agent_event"].find(order_by="position", limit=None)
        assert [each["position"] for each in events] == list(range(1, 4 * ROUNDS + 1))


def append_items(db: Database, side: int) -> Round:
    lists = ItemLists(db, "items", owner="lists")

    def do(n: int) -> bool:
        lists.append("one", [{"side": side, "n": n}])
        return True

    return do


def test_items_of_one_list(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        lists = ItemLists(db, "items", owner="lists")
        assert both.race(url, append_items, ROUNDS) == [[True, True]] * ROUNDS
        items = lists.items("one")
        assert len(items) == 2 * ROUNDS
        assert [each["n"] for each in items] == [n for n in range(ROUNDS) for _ in range(2)]
