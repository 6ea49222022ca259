"""AmberSaver: durable puts, channels that store changes only, bad input, and closing."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

import amberdb
from amberdb import ClosedError, CollectionError, Database, InvalidDocumentError
from amberdb.integrations.langgraph import AmberCache, AmberSaver, AmberStore

CHILD = """
import sys
from amberdb.integrations.langgraph import AmberStore

with AmberStore(sys.argv[1]) as store:
    store.put(("notes",), "of the child", {"n": 1})
    print("open", flush=True)
    sys.stdin.read()
"""


def extend(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(text for write in writes for text in write)]


class State(TypedDict):
    log: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=4)]
    rare: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=1_000)]
    turn: int


def compiled(saver: Any) -> Any:
    def count(state: State) -> dict[str, Any]:
        turn = state.get("turn", 0) + 1
        found: dict[str, Any] = {"turn": turn, "log": [f"model {turn}"]}
        return found | ({"rare": [f"rare {turn}"]} if turn % 3 == 0 else {})

    def tool(state: State) -> dict[str, Any]:
        return {"log": [f"tool {state['turn']}"]}

    builder = StateGraph(State)
    builder.add_node("count", count)
    builder.add_node("tool", tool)
    builder.add_edge(START, "count")
    builder.add_edge("count", "tool")
    builder.add_edge("tool", END)
    return builder.compile(checkpointer=saver)


def config_of(thread: str = "1", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **more}}


def checkpoint(values: dict[str, Any], versions: dict[str, Any]) -> Checkpoint:
    made = empty_checkpoint()
    made["channel_values"], made["channel_versions"] = values, versions
    return made


def stored(db: Database) -> dict[str, int]:
    return {name: len(db[name]) for name in db.collections()}


# -- channels that store changes only --------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 2, 5, 9])
def test_a_pruned_thread_rebuilds_its_channels(saver: AmberSaver, turns: int) -> None:
    graph, config = compiled(saver), config_of()
    for turn in range(turns):
        graph.invoke({"log": [f"user {turn}"]}, config)
    before = graph.get_state(config)
    saver.prune(["1"])
    assert graph.get_state(config).values == before.values
    assert len(list(saver.list(config))) == 1
    graph.invoke({"log": ["again"]}, config)
    saver.prune(["1"])
    assert graph.get_state(config).values["log"][:-3] == before.values["log"]
    assert graph.get_state(config).values["rare"][: len(before.values.get("rare", []))] == (
        before.values.get("rare", [])
    )


def test_prune_leaves_what_is_needed_and_no_more(db: Database, saver: AmberSaver) -> None:
    graph, config = compiled(saver), config_of()
    for turn in range(13):
        graph.invoke({"log": [f"user {turn}"]}, config)
        saver.prune(["1"])
    counts = stored(db)
    assert counts["langgraph.checkpoint"] == 1
    written = [write[1] for row in db["langgraph.writes"].find({}) for write in row["writes"]]
    assert set(written) == {"log", "rare"}
    assert written.count("rare") == 4  # no value of it was ever stored, so its writes stay
    assert written.count("log") <= 5  # those since its last value
    texts = [row for row in db["langgraph.blob"].find({}) if row["channel"] == "log"]
    assert len(texts) == 1
    saver.prune(["1"], strategy="delete")
    assert set(stored(db).values()) == {0}


def test_runs_are_removed_and_later_ones_keep_their_values(saver: AmberSaver) -> None:
    graph = compiled(saver)
    for turn in range(6):
        config = config_of() | {"metadata": {"run_id": f"run {turn}"}}
        graph.invoke({"log": [f"user {turn}"]}, config)
    before = graph.get_state(config_of()).values
    history = {
        s.config["configurable"]["checkpoint_id"]: s.values
        for s in graph.get_state_history(config_of())
    }
    saver.delete_for_runs(["run 1", "run 3", "run 4", "none"])
    assert graph.get_state(config_of()).values == before
    left = list(graph.get_state_history(config_of()))
    assert 0 < len(left) < len(history)
    for state in left:
        assert state.values == history[state.config["configurable"]["checkpoint_id"]]


def test_a_copy_has_the_whole_history(saver: AmberSaver) -> None:
    graph = compiled(saver)
    for turn in range(5):
        graph.invoke({"log": [f"user {turn}"]}, config_of())
    saver.prune(["1"])
    graph.invoke({"log": ["after"]}, config_of())
    saver.copy_thread("1", "2")
    wanted = [state.values for state in graph.get_state_history(config_of())]
    saver.delete_thread("1")
    assert [state.values for state in graph.get_state_history(config_of("2"))] == wanted
    assert list(saver.list(config_of())) == []


def test_branches_keep_their_own_history(saver: AmberSaver) -> None:
    graph = compiled(saver)
    for turn in range(3):
        graph.invoke({"log": [f"user {turn}"]}, config_of())
    middle = list(graph.get_state_history(config_of()))[4]
    graph.invoke({"log": ["branch"]}, middle.config)
    before = graph.get_state(config_of()).values
    assert "branch" in before["log"]
    assert "user 2" not in before["log"]
    saver.prune(["1"])
    assert graph.get_state(config_of()).values == before


@pytest.mark.parametrize("seed", range(8))
def test_the_same_history_as_in_memory(saver: AmberSaver, seed: int) -> None:
    chance, memory = random.Random(seed), InMemorySaver()
    parents: list[RunnableConfig] = [config_of()]
    written: dict[str, set[str]] = {}  # channels by checkpoint; its children have a new version
    for version in range(1, 31):
        parent = chance.choice(parents[-4:])
        after = written.get(parent["configurable"].get("checkpoint_id", ""), set())
        channels = sorted({*chance.sample("abcd", chance.randint(0, 1)), *after})
        values: dict[str, Any] = {
            c: chance.choice([version, [version]]) for c in channels if chance.random() < 0.4
        }
        versions = dict.fromkeys(channels, f"{version:032}.0")
        old = saver.get_tuple(parent) if parent != parents[0] else None
        known = dict(old.checkpoint["channel_versions"]) if old else {}
        made = checkpoint(values, known | versions)
        for each in (saver, memory):
            config = each.put(parent, made, {"run_id": str(version % 6)}, versions)
        parents.append(config)
        for task in range(chance.randint(0, 2)):
            writes = [(chance.choice("abcd"), [version, task, n]) for n in range(2)]
            written.setdefault(made["id"], set()).update(channel for channel, _ in writes)
            path = chance.choice(["", "~x", "~y"])
            for each in (saver, memory):
                each.put_writes(config, writes, f"task {task}", path)
    for config in parents[1:]:
        history = saver.get_delta_channel_history(config=config, channels="abcd")
        assert history == memory.get_delta_channel_history(config=config, channels="abcd")
        assert saver.get_tuple(config) == memory.get_tuple(config)
    assert list(saver.list(config_of())) == list(memory.list(config_of()))
    saver.delete_for_runs([str(chance.randint(0, 5)) for _ in range(3)])
    saver.delete_for_runs([str(chance.randint(0, 5))])
    left = list(saver.list(config_of()))
    for found in left:
        config = found.config
        history = saver.get_delta_channel_history(config=config, channels="abcd")
        wanted = memory.get_delta_channel_history(config=config, channels="abcd")
        assert found == memory.get_tuple(config)
        for channel in found.checkpoint["channel_versions"]:
            if channel not in found.checkpoint["channel_values"]:
                assert history[channel] == wanted[channel]


# -- storage ---------------------------------------------------------------------------------


def test_a_put_is_one_durable_commit(db: Database, saver: AmberSaver) -> None:
    before = db.stats().last_lsn
    made = checkpoint({"a": [1], "b": 2}, {"a": 1, "b": 1})
    config = saver.put(config_of(), made, {"step": 1}, {"a": 1, "b": 1})
    assert db.stats().last_lsn == before + 1
    saver.put_writes(config, [("a", [2]), ("b", 3)], "task")
    assert db.stats().last_lsn == before + 2
    assert db.stats().durable_lsn == db.stats().last_lsn


def test_a_value_that_stays_is_stored_once(db: Database, saver: AmberSaver) -> None:
    config = config_of()
    large = ["text"] * 1_000
    for step in range(5):
        made = checkpoint({"large": large, "step": step}, {"large": 1, "step": step})
        new = {"step": step} | ({"large": 1} if step == 0 else {})
        config = saver.put(config, made, {"step": step}, new)
    assert len(db["langgraph.blob"]) == 1
    assert [found.checkpoint["channel_values"] for found in saver.list(config_of())] == [
        {"large": large, "step": step} for step in (4, 3, 2, 1, 0)
    ]


def test_a_blob_that_is_gone_is_left_out(db: Database, saver: AmberSaver) -> None:
    saver.put(config_of(), checkpoint({"a": [1], "b": 2}, {"a": 1, "b": 1}), {}, {"a": 1})
    db["langgraph.blob"].delete_many({})
    found = saver.get_tuple(config_of())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"b": 2}


def test_a_list_goes_over_pages(saver: AmberSaver) -> None:
    ids: list[str] = []
    for step in range(150):
        made = checkpoint({}, {})
        made["id"] = str(uuid6(clock_seq=step))
        ids.append(
            saver.put(config_of(), made, {"step": step}, {})["configurable"]["checkpoint_id"]
        )
    listed = [found.checkpoint["id"] for found in saver.list(config_of())]
    assert listed == ids[::-1]
    assert [t.checkpoint["id"] for t in saver.list(config_of(), limit=70)] == ids[:79:-1]
    before = config_of(checkpoint_id=ids[100])
    assert [t.checkpoint["id"] for t in saver.list(config_of(), before=before)] == ids[99::-1]
    thread: RunnableConfig = {"configurable": {"thread_id": "1"}}
    assert [t.checkpoint["id"] for t in saver.list(thread, before=before)] == ids[99::-1]
    assert [t.checkpoint["id"] for t in saver.list(None, filter={"step": 7})] == [ids[7]]
    assert list(saver.list(None, limit=0)) == []


def test_event_loops(saver: AmberSaver) -> None:
    async def run() -> None:
        graph = compiled(saver)
        await asyncio.gather(
            *(graph.ainvoke({"log": [f"user {n}"]}, config_of(f"t{n}")) for n in range(10))
        )
        for n in range(10):
            state = await graph.aget_state(config_of(f"t{n}"))
            assert state.values["log"] == [f"user {n}", "model 1", "tool 1"]
        await saver.aprune([f"t{n}" for n in range(10)])
        listed = [found async for found in saver.alist(None)]
        assert len(listed) == 10

    asyncio.run(run())


# -- names -----------------------------------------------------------------------------------

NAMES = ["", "a", "a!b", "#", "a" * 10_000, "a" * 9_999 + "b", "\0", "a|b:c", "x", "x/y", "x" * 55]


def test_names_are_any_text(saver: AmberSaver) -> None:
    names = [*NAMES, "\u4f60" * 300, "\u4f60" * 30, "\U0001f600"]
    for thread in names:
        for namespace in names[:4]:
            config: RunnableConfig = {
                "configurable": {"thread_id": thread, "checkpoint_ns": namespace}
            }
            made = checkpoint({thread: [thread, namespace]}, {thread: thread})
            config = saver.put(config, made, {}, {thread: thread})
            saver.put_writes(config, [(thread, thread)], thread or "task", thread)
    for thread in names:
        listed = list(saver.list({"configurable": {"thread_id": thread}}))
        assert sorted(t.checkpoint["channel_values"][thread][1] for t in listed) == sorted(
            names[:4]
        )
        assert all(t.pending_writes and t.pending_writes[0][1:] == (thread, thread) for t in listed)
    for count, thread in enumerate(names, start=1):
        saver.delete_thread(thread)
        assert len(list(saver.list(None))) == 4 * (len(names) - count)


def test_no_name_can_be_taken_for_a_long_one(db: Database, saver: AmberSaver) -> None:
    saver.put(config_of("a" * 1_000), checkpoint({"a": 1}, {"a": 1}), {}, {"a": 1})
    (row,) = db["langgraph.checkpoint"].find({})
    digest = row["id"].split("!")[0].removeprefix("s")
    assert digest.startswith("#")
    assert saver.get_tuple(config_of(digest)) is None
    saver.delete_thread(digest)
    assert saver.get_tuple(config_of("a" * 1_000)) is not None


def test_bad_input_has_typed_errors(saver: AmberSaver) -> None:
    with pytest.raises(ValueError, match="thread_id"):
        saver.get_tuple({"configurable": {}})
    with pytest.raises(ValueError, match="thread_id"):
        saver.put({}, checkpoint({}, {}), {}, {})
    with pytest.raises(ValueError, match="checkpoint_id"):
        saver.put_writes(config_of(), [("a", 1)], "task")
    with pytest.raises(ValueError, match="keep_latest"):
        saver.prune(["1"], strategy="other")
    with pytest.raises(InvalidDocumentError):
        saver.put(config_of("\ud800"), checkpoint({}, {}), {}, {})
    assert list(saver.list(None)) == []


# -- opening and closing ---------------------------------------------------------------------


def test_adapters_share_a_path(tmp_path: Path) -> None:
    path = tmp_path / "agent.amber"
    with AmberSaver(path) as one, AmberSaver(str(path)) as two, AmberStore(path), AmberCache(path):
        one.put(config_of(), checkpoint({"a": [1]}, {"a": 1}), {}, {"a": 1})
        found = two.get_tuple(config_of())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": [1]}
    one.close()
    one.close()
    with pytest.raises(ClosedError):
        one.get_tuple(config_of())
    with AmberSaver(path) as again:
        assert again.get_tuple(config_of()) == found


def test_another_process_has_the_path_open(tmp_path: Path) -> None:
    path = tmp_path / "agent.amber"
    command = [sys.executable, "-c", CHILD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with AmberSaver(path) as saver, AmberStore(path) as store:
            assert store.get(("notes",), "of the child") is not None
            graph = compiled(saver)
            asyncio.run(graph.ainvoke({"turn": 0}, config_of()))
            child.communicate(timeout=60)  # it ends: this process is the first one then
            asyncio.run(graph.ainvoke({}, config_of()))
            state = graph.get_state(config_of()).values
            assert (state["turn"], len(state["log"])) == (2, 4)
            assert asyncio.run(store.aget(("notes",), "of the child")) is not None


def test_a_database_of_the_program_stays_open(db: Database) -> None:
    with AmberSaver(db):
        pass
    assert db.stats().last_lsn >= 0


def test_collections_of_the_program_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.amber"
    with amberdb.open(path) as db:
        db.collection("langgraph.checkpoint", indexes=[]).put({"id": "mine"})
    with pytest.raises(CollectionError):
        AmberSaver(path)
    with AmberSaver(path, name="other") as saver:
        assert saver.get_tuple(config_of()) is None
