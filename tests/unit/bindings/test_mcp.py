"""The tools of the memory server, without the protocol: what they store, show, limit and refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb import Database, DiskFullError
from amberdb.cli.__main__ import app
from amberdb.mcp import McpOptions, default_path, graph_tools, memory_tools
from amberdb.mcp.answers import Answer, Budget, ToolError
from amberdb.mcp.options import address_of
from amberdb.mcp.resources import GRAPH, LOG, RECENT, entity_uri, read, touched
from amberdb.mcp.store import Store
from amberdb.mcp.tool import message_of, named

TOOLS = (*graph_tools.TOOLS, *memory_tools.TOOLS)
TOKEN = "a-token-of-24-characters"
Call = Callable[..., Answer]

LIN = {"name": "lin", "entityType": "person", "observations": ["likes green tea"]}
CITY = {"name": "杭州", "entityType": "city", "observations": ["西湖在这里"]}
HOME = {"from": "lin", "to": "杭州", "relationType": "lives_in"}


def calling(store: Store) -> Call:
    def call(tool: str, **arguments: Any) -> Answer:
        return named(TOOLS, tool, read_only=store.options.read_only).call(store, arguments)

    return call


@pytest.fixture
def call(db: Database) -> Call:
    return calling(Store(db, McpOptions()))


@pytest.fixture
def told(call: Call) -> Call:
    """With two entities and a relation."""
    call("create_entities", entities=[LIN, CITY])
    call("create_relations", relations=[HOME])
    return call


def names(answer: Answer) -> list[str]:
    return [each["name"] for each in answer.content["entities"]]


# -- the tools of the official server ------------------------------------------------------------


def test_a_call_that_fails_stores_nothing_of_itself(told: Call) -> None:
    before = told("read_graph").content
    new = {"from": "杭州", "to": "lin", "relationType": "home_of"}
    with pytest.raises(ToolError, match="Entity with name nobody not found"):
        told("create_relations", relations=[new, {**new, "to": "nobody"}])
    with pytest.raises(ToolError, match="Entity with name nobody not found"):
        told(
            "add_observations",
            observations=[
                {"entityName": "lin", "contents": ["new"]},
                {"entityName": "nobody", "contents": ["x"]},
            ],
        )
    assert told("read_graph").content == before


def test_what_is_named_twice_is_stored_once(call: Call) -> None:
    assert names(call("create_entities", entities=[LIN, LIN])) == ["lin"]
    added = call(
        "add_observations",
        observations=[
            {"entityName": "lin", "contents": ["a", "a"]},
            {"entityName": "lin", "contents": ["a", "b"]},
        ],
    )
    assert [each["addedObservations"] for each in added.content["results"]] == [["a"], ["b"]]
    loop = {"from": "lin", "to": "lin", "relationType": "knows"}
    assert call("create_relations", relations=[loop, loop]).content == {"relations": [loop]}
    assert call("create_relations", relations=[loop]).content == {"relations": []}


def test_chinese_is_found_by_a_part_and_by_words(told: Call) -> None:
    assert names(told("search_nodes", query="西湖")) == ["杭州"]
    assert names(told("search_nodes", query="这里 西湖")) == ["杭州"]  # no substring
    assert told("search_nodes", query="西湖").content["relations"] == [HOME]
    assert names(told("search_nodes", query="北京")) == []


def test_a_relation_that_has_ended_can_be_told_again(db: Database, told: Call) -> None:
    graph = Store(db, McpOptions()).graph
    (relation,) = graph.relations(source="lin")
    graph.end_relation(relation["id"])
    assert told("read_graph").content["relations"] == []
    assert told("create_relations", relations=[HOME]).content["relations"] == [HOME]
    assert told("read_graph").content["relations"] == [HOME]
    assert len(graph.relations(source="lin", as_of="ever")) == 2


def test_an_entity_is_found_by_its_alias(db: Database, told: Call) -> None:
    Store(db, McpOptions()).graph.add_aliases("lin", ["Lily"])
    assert names(told("open_nodes", names=["Lily", "nobody", ""])) == ["lin"]
    assert told("create_entities", entities=[{**LIN, "name": "Lily"}]).content == {"entities": []}


def test_many_hits_have_their_relations(call: Call) -> None:
    many = [{**LIN, "name": f"p{n}"} for n in range(120)]
    call("create_entities", entities=many)
    ring = [
        {"from": f"p{n}", "to": f"p{(n + 1) % 120}", "relationType": "knows"} for n in range(120)
    ]
    call("create_relations", relations=ring)
    found = call("search_nodes", query="green")
    assert (found.content["relations"], found.note) == (ring, None)


# -- layered memory ------------------------------------------------------------------------------


def test_a_memory_is_stored_once_found_changed_explained_and_forgotten(call: Call) -> None:
    text = "用户是一名软件工程师，毕业于北京大学"
    first = call("remember", text=text, reason="he said so", category="education").content
    assert first["action"] == "insert"
    again = call("remember", text=text).content
    assert (again["action"], again["id"]) == ("ignore", first["id"])
    (found,) = call("recall", query="软件工程师").content["memories"]
    assert (found["id"], found["text"], found["layer"]) == (first["id"], text, "profile")
    assert found["score"] > 0
    assert found["told"].endswith("Z")
    call("update", id=first["id"], content="高级软件工程师", reason="promoted")
    changes = call("why", id=first["id"]).content["changes"]
    assert [(each["action"], each["reason"]) for each in changes] == [
        ("insert", "he said so"),
        ("update", "promoted"),
    ]
    assert (changes[1]["before"], changes[1]["after"]) == (text, "高级软件工程师")
    receipt = call("forget", ids=[first["id"], "unknown"], reason="asked").content
    assert (receipt["memories"], receipt["unknown"]) == (1, ["unknown"])
    assert call("recall", query="软件工程师").content["memories"] == []
    with pytest.raises(ToolError, match="the log has nothing"):
        call("why", id=first["id"])


def test_events_expire_and_have_a_timeline(told: Call) -> None:
    meeting = told("remember", text="met Wang", category="meeting", entity="lin").content
    assert meeting["layer"] == "event"
    assert meeting["expires"] is not None
    trip = told("remember", text="is in Beijing", expires="2999-01-01", entity="lin").content
    assert (trip["layer"], trip["expires"]) == ("event", "2999-01-01T00:00:00Z")
    moments = told("timeline", entity="lin").content["moments"]
    assert {each["kind"] for each in moments} == {"event", "relation"}
    assert [each["time"] for each in moments] == sorted(
        (each["time"] for each in moments), reverse=True
    )
    assert told("timeline", entity="lin", **{"from": "2999-01-01"}).content["moments"] == []
    assert told("timeline", entity="lin", to="2000-01-01").content["moments"] == []


def test_recall_keeps_to_an_entity_and_a_time(told: Call) -> None:
    told("remember", text="drinks tea at noon", entity="lin")
    told("remember", text="tea is out of stock")
    assert len(told("recall", query="tea").content["memories"]) == 2
    mine = told("recall", query="tea", entity="lin").content
    assert [each["entity"] for each in mine["memories"]] == ["lin"]
    assert [each["name"] for each in mine["entities"]] == ["lin"]
    assert told("recall", query="tea", limit=1).content["memories"][0]["score"] > 0
    late = told("recall", query="tea", since="2999-01-01").content
    assert late == {"memories": [], "entities": []}


def test_forgetting_an_entity_leaves_no_byte_of_it(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path) as db:
        call = calling(Store(db, McpOptions()))
        secret = "zanzibar-4711"
        call("create_entities", entities=[{**LIN, "observations": [secret]}, CITY])
        call("create_relations", relations=[HOME])
        call("remember", text=f"{secret} once more", entity="lin")
        call("remember", text="of another one")
        receipt = call("forget", entity="lin", reason="request 17").content
        assert {name: receipt[name] for name in ("memories", "entities", "relations")} == {
            "memories": 1,
            "entities": 1,
            "relations": 1,
        }
        for file in path.rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes()
        assert names(call("read_graph")) == ["杭州"]
        assert len(call("recall", query="another").content["memories"]) == 1
        with pytest.raises(ToolError, match="nothing is known of 'lin'"):
            call("forget", entity="lin", reason="again")


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("remember", {"text": "x", "expires": "soon"}, "expires must be ISO 8601"),
        ("remember", {"text": "x", "expires": "2001-01-01"}, "is past"),
        ("remember", {"text": "x", "layer": "other"}, "Invalid arguments for tool remember"),
        ("recall", {"query": "x", "limit": 0}, "Invalid arguments for tool recall"),
        ("recall", {}, "missing required field `query`"),
        ("timeline", {"entity": "nobody"}, "nothing is known of 'nobody'"),
        ("update", {"id": "x", "content": "y", "reason": "z"}, "no memory has the id 'x'"),
        ("update", {"id": "x", "content": "y", "reason": ""}, "Invalid arguments for tool update"),
        ("forget", {"reason": "x"}, "give ids or entity"),
        ("forget", {"reason": "x", "ids": []}, "no memory has one of these ids"),
        ("no_such_tool", {}, "Tool no_such_tool not found"),
    ],
)
def test_what_cannot_be_answered_says_why(
    call: Call, tool: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ToolError, match=message):
        call(tool, **arguments)


def test_errors_of_the_database_are_told_and_others_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert message_of(DiskFullError("no space: free some"), "x") == "no space: free some"
    assert message_of(OSError(28, "No space left", "file"), "x") == "file: No space left"
    assert caplog.text == ""
    assert message_of(KeyError("a"), "recall") == "recall failed: KeyError: 'a'"
    assert "recall failed" in caplog.text


# -- options -------------------------------------------------------------------------------------


def test_namespaces_do_not_see_each_other(db: Database) -> None:
    one, other = (calling(Store(db, McpOptions(namespace=name))) for name in ("work", "home"))
    one("create_entities", entities=[LIN])
    one("remember", text="ships on Friday")
    assert names(other("read_graph")) == []
    assert other("recall", query="Friday").content["memories"] == []
    counts = one("stats").content
    assert (counts["namespace"], counts["entities"], counts["profile"]) == ("work", 1, 1)
    assert {"work_graph_entities", "work_profile"} <= set(db.collections())


def test_an_answer_has_at_most_so_many_characters(db: Database) -> None:
    call = calling(Store(db, McpOptions(chars_max=1_000)))
    call("create_entities", entities=[{**LIN, "name": f"p{n}"} for n in range(50)])
    answer = call("read_graph")
    assert len(answer.text) <= 1_000
    assert answer.note is not None
    assert answer.note.startswith(f"{50 - len(names(answer))} more did not fit")
    assert json.loads(answer.text) == answer.content
    long = call("remember", text="tea " * 1_000).content
    (found,) = call("recall", query="tea").content["memories"]
    assert found["id"] == long["id"]
    assert 200 < len(found["text"]) < 600
    odd = call("remember", text='"\x01\n' * 1_000, entity="odd").content
    assert len(call("why", id=odd["id"]).text) <= 1_000
    assert len(call("timeline", entity="odd").text) <= 1_000
    whole = calling(Store(db, McpOptions(chars_max=0)))
    assert len(names(whole("read_graph"))) == 50


def test_a_budget_keeps_the_order_and_counts_the_rest() -> None:
    items: list[dict[str, Any]] = [{"a": "x" * 50} for _ in range(4)]
    kept, count = Budget(150).fitted({"one": items, "two": items})
    assert (len(kept["one"]), kept["two"], count) == (2, [], 6)
    assert Budget(0).fitted({"one": items}) == ({"one": items}, 0)


def test_read_only_has_the_tools_that_read(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        calling(Store(db, McpOptions()))("create_entities", entities=[LIN])
        with amberdb.open(tmp_path / "t.amber", read_only=True) as reader:
            call = calling(Store(reader, McpOptions(read_only=True)))
            assert names(call("read_graph")) == ["lin"]
            with pytest.raises(ToolError, match="--read-only"):
                call("remember", text="x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0", "token": TOKEN}, "other machines"),
        ({"host": "example.com", "token": TOKEN}, "other machines"),
        ({"host": "127.0.0.1"}, "give a token"),
        ({"host": "127.0.0.1", "token": "short"}, "at least 16"),
        ({"host": "127.0.0.1", "token": TOKEN, "port": 70_000}, "0 to 65535"),
        ({"namespace": "a/b"}, "namespace"),
        ({"namespace": ""}, "namespace"),
        ({"namespace": "n" * 65}, "at most 64"),
        ({"tools": "most"}, "core or full"),
        ({"chars_max": 5}, "at least 1000"),
    ],
)
def test_options_are_refused_before_anything_is_opened(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        McpOptions(**options)


def test_addresses() -> None:
    assert address_of("127.0.0.1:80") == ("127.0.0.1", 80)
    assert address_of("[::1]:0") == ("::1", 0)
    for text in ("80", "localhost", "localhost:", "localhost:x"):
        with pytest.raises(ValueError, match="an address and a port"):
            address_of(text)


def test_the_default_path_is_in_the_users_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "amberdb" / "memory.amber"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_path() == Path.home() / ".local/share/amberdb/memory.amber"


# -- resources and files -------------------------------------------------------------------------


def test_resources_show_what_is_stored(db: Database, told: Call) -> None:
    store = Store(db, McpOptions())
    told("remember", text="likes tea", reason="he said so")
    assert json.loads(read(store, GRAPH)) == told("read_graph").content
    entity = json.loads(read(store, entity_uri("杭州")))
    assert (entity["name"], entity["relations"][0]["from"]) == ("杭州", "lin")
    assert json.loads(read(store, RECENT))["memories"][0]["text"] == "likes tea"
    assert json.loads(read(store, LOG))["changes"][0]["reason"] == "he said so"
    for uri in (entity_uri("nobody"), "memory://entity/", "memory://other", "file:///etc"):
        with pytest.raises(ToolError):
            read(store, uri)


def test_a_change_touches_the_resources_that_show_it(db: Database, told: Call) -> None:
    store = Store(db, McpOptions())
    uris = (GRAPH, RECENT, LOG, entity_uri("lin"), entity_uri("杭州"), entity_uri("other"))

    def after(tool: str, **arguments: Any) -> set[str]:
        lsn = db.stats().last_lsn
        told(tool, **arguments)
        return {uri for change in db.changes(lsn) for uri in touched(store, change, uris)}

    assert after("remember", text="x") == {RECENT, LOG}
    assert after("create_entities", entities=[{**LIN, "name": "other"}]) == {
        GRAPH,
        entity_uri("other"),
    }
    works = {"from": "lin", "to": "other", "relationType": "knows"}
    assert after("create_relations", relations=[works]) == {
        GRAPH,
        entity_uri("lin"),
        entity_uri("other"),
    }
    assert after("delete_relations", relations=[works]) >= {GRAPH, entity_uri("lin")}
    assert after("delete_entities", entityNames=["lin"]) >= {GRAPH, entity_uri("lin")}


def test_the_file_of_the_official_server_goes_in_and_out(tmp_path: Path) -> None:
    file, path, out = (tmp_path / name for name in ("in.jsonl", "t.amber", "out.jsonl"))
    lines = [{"type": "entity", **LIN}, {"type": "entity", **CITY}, {"type": "relation", **HOME}]
    dangling = {"type": "relation", **HOME, "to": "nobody"}
    text = "\n".join(json.dumps(line) for line in [*lines, dangling])
    file.write_text(text, encoding="utf-8")
    ran = CliRunner().invoke(app, ["mcp", str(path), "--import", str(file), "--json"])
    assert ran.exit_code == 5
    assert "line 4: the graph has no entity 'nobody'" in ran.stderr
    assert json.loads(ran.stdout)["entities"] == 2
    ran = CliRunner().invoke(app, ["mcp", str(path), "--export", str(out)])
    assert ran.exit_code == 0, ran.output
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert sorted(map(str, written)) == sorted(map(str, lines))


@pytest.mark.parametrize(
    "options",
    [
        ["--http", "0.0.0.0:80"],
        ["--http", "127.0.0.1:80"],
        ["--http", "80"],
        ["--tools", "some"],
        ["--namespace", "a b"],
        ["--max-chars", "3"],
        ["--dim", "3"],
    ],
)
def test_wrong_options_end_the_command(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMBERDB_TOKEN", raising=False)
    ran = CliRunner().invoke(app, ["mcp", str(tmp_path / "t.amber"), *options])
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert not (tmp_path / "t.amber").exists()
