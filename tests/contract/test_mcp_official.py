"""The official memory server and ours answer the same calls with the same: both are started, and
given sequences of calls.

It needs node and `npm install --global @modelcontextprotocol/server-memory`, or the package in a
folder of NODE_PATH; without them it is skipped.
"""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support.mcp_stdio import AMBERDB, StdioClient, talking
from support.slices import size

pytestmark = [pytest.mark.slow, pytest.mark.sliced]

PACKAGE: Final = Path("@modelcontextprotocol/server-memory/dist/index.js")
NAMES: Final = ("lin", "Lin Yi", "林", "杭州", "acme", 'a "quoted" name', "tea", "İstanbul", "zoë")
TYPES: Final = ("person", "city", "Company", "公司")
TEXTS: Final = (
    "likes green tea",
    "Likes TEA",
    "毕业于北京大学",
    "住在杭州，喜欢喝茶",
    "line\nbreak\tand \\ back",
    "C++ and v1.2.3",
    "👍🏽 \x01\x7f\x85\u2028 / \b\f",
    "",
)
QUERIES: Final = ("tea", "TEA", "l", "杭州", "喝茶", "person", "", "break", "zoË", "nothing of it")
RELATIONS: Final = ("knows", "works_at", "住在")


ERRORS: Final[list[tuple[str, Any, str]]] = [
    (
        "create_relations",
        {"relations": [{"from": "lin", "to": "nobody", "relationType": "knows"}]},
        "Entity with name nobody not found",
    ),
    (
        "create_entities",
        {"entities": [{"name": "", "entityType": "x", "observations": []}]},
        "name must be a non-empty str, not ''",
    ),
    (
        "create_entities",
        {"entities": [{"name": 5}]},
        "MCP error -32602: Input validation error: Invalid arguments for tool create_entities",
    ),
    ("no_such_tool", {}, "MCP error -32602: Tool no_such_tool not found"),
    (
        "add_observations",
        {"observations": [{"entityName": "nobody", "contents": ["x"]}]},
        "Entity with name nobody not found",
    ),
]


@pytest.fixture(scope="module")
def official() -> Path:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm here")
    asked = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, timeout=60)
    places = [*os.environ.get("NODE_PATH", "").split(os.pathsep), asked.stdout.strip()]
    for place in filter(None, places):
        if (Path(place) / PACKAGE).is_file():
            return Path(place) / PACKAGE
    pytest.skip("npm install --global @modelcontextprotocol/server-memory")


@pytest.fixture
def both(official: Path, tmp_path: Path) -> Iterator[tuple[StdioClient, StdioClient]]:
    """Sessions with the official server and with ours, both empty."""
    env = {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}
    with (
        talking(["node", official], env=env) as theirs,
        talking([*AMBERDB, tmp_path / "t.amber", "--tools", "core", "--max-chars", "0"]) as ours,
    ):
        yield theirs, ours


def test_the_tools_have_the_same_schemas(both: tuple[StdioClient, StdioClient]) -> None:
    theirs, ours = (
        {each["name"]: each for each in client.request("tools/list")["tools"]} for client in both
    )
    assert list(theirs) == list(ours)
    for name, tool in theirs.items():
        del tool["execution"]  # whether it runs as a task: never, the default
        assert ours[name] == tool


@pytest.mark.parametrize("seed", range(size(40, 3)))
def test_the_same_calls_have_the_same_answers(
    seed: int, both: tuple[StdioClient, StdioClient], tmp_path: Path
) -> None:
    draw = random.Random(seed)
    theirs, ours = both
    names: set[str] = set()
    for _ in range(60):
        tool, arguments = drawn(draw, names)
        answers = [client.call(tool, **arguments) for client in both]
        assert_same(tool, arguments, *answers)
        if tool == "create_entities":
            names |= {each["name"] for each in arguments["entities"]}
        if tool == "delete_entities":
            names -= set(arguments["entityNames"])
    resource = {"uri": "memory://knowledge-graph"}
    assert theirs.request("resources/read", **resource) == ours.request(
        "resources/read", **resource
    )
    stop(ours)
    exported = tmp_path / "exported.jsonl"
    subprocess.run(
        [*AMBERDB, str(tmp_path / "t.amber"), "--export", str(exported)], check=True, timeout=60
    )
    assert lines(exported) == lines(tmp_path / "memory.jsonl")


def test_the_file_of_the_official_server_is_taken_over(official: Path, tmp_path: Path) -> None:
    file, path = tmp_path / "memory.jsonl", tmp_path / "t.amber"
    draw = random.Random(7)
    names: set[str] = set()
    with talking(["node", official], env={"MEMORY_FILE_PATH": str(file)}) as theirs:
        for _ in range(40):
            tool, arguments = drawn(draw, names)
            theirs.call(tool, **arguments)
            if tool == "create_entities":
                names |= {each["name"] for each in arguments["entities"]}
            if tool == "delete_entities":
                names -= set(arguments["entityNames"])
        graph = theirs.call("read_graph")
    for _ in range(2):  # again changes nothing
        subprocess.run([*AMBERDB, str(path), "--import", str(file)], check=True, timeout=60)
    with talking([*AMBERDB, path]) as ours:
        assert without_false(ours.call("read_graph")) == without_false(graph)


# -- what differs, and how -----------------------------------------------------------------------


def assert_same(tool: str, arguments: Any, theirs: Any, ours: Any) -> None:
    """The answers are equal, or differ as docs/mcp.md says."""
    if tool == "search_nodes" and not theirs["structuredContent"]["entities"]:
        return  # ours may find entities by the words of the query
    assert without_false(ours) == without_false(theirs), (tool, arguments)


def without_false(answer: Any) -> Any:
    """An answer, where `isError` is false when it is left out."""
    return {name: value for name, value in answer.items() if value is not False}


@pytest.mark.parametrize(("tool", "arguments", "text"), ERRORS)
def test_errors(
    tool: str, arguments: Any, text: str, both: tuple[StdioClient, StdioClient]
) -> None:
    theirs, ours = both
    for client in both:
        client.call(
            "create_entities", entities=[{"name": "lin", "entityType": "x", "observations": []}]
        )
    answer = ours.call(tool, **arguments)
    assert answer["isError"] is True
    assert answer["content"][0]["text"].startswith(text)
    if "MCP error" in text or tool == "add_observations":
        assert theirs.call(tool, **arguments)["content"][0]["text"].startswith(text)
    assert len(ours.call("read_graph")["structuredContent"]["entities"]) == 1


def test_words_find_where_a_substring_finds_nothing(
    both: tuple[StdioClient, StdioClient],
) -> None:
    told = {"name": "lin", "entityType": "person", "observations": ["likes green tea"]}
    found: list[list[str]] = []
    for client in both:
        client.call("create_entities", entities=[told])
        graph = client.call("search_nodes", query="tea, green")["structuredContent"]
        found.append([each["name"] for each in graph["entities"]])
    assert found == [[], ["lin"]]


# -- drawing -------------------------------------------------------------------------------------


def drawn(draw: random.Random, there: set[str]) -> tuple[str, dict[str, Any]]:
    """A call. Relations are drawn between entities that are there, and no call names a thing
    twice."""
    names = draw.sample(NAMES, draw.randint(1, 4))
    texts = draw.sample(TEXTS, draw.randint(0, 3))
    kind = draw.choice(TYPES)
    ends = sorted(there)
    tools: dict[str, dict[str, Any]] = {
        "create_entities": {
            "entities": [
                {"name": name, "entityType": kind, "observations": texts, "extra": 1}
                for name in names
            ]
        },
        "add_observations": {
            "observations": [{"entityName": name, "contents": texts} for name in names]
        },
        "delete_entities": {"entityNames": names[:1]},
        "delete_observations": {
            "deletions": [{"entityName": name, "observations": texts} for name in names]
        },
        "delete_relations": {"relations": relations(draw, list(NAMES))},
        "read_graph": {},
        "search_nodes": {"query": draw.choice(QUERIES)},
        "open_nodes": {"names": names},
    }
    if ends:
        tools["create_relations"] = {"relations": relations(draw, ends)}
    tool = draw.choice([*tools, "create_entities", "create_relations"])
    return (tool, tools[tool]) if tool in tools else ("read_graph", {})


def relations(draw: random.Random, ends: list[str]) -> list[dict[str, str]]:
    found = {
        (draw.choice(ends), draw.choice(ends), draw.choice(RELATIONS))
        for _ in range(draw.randint(1, 4))
    }
    keys = ("from", "to", "relationType")
    return [dict(zip(keys, each, strict=True)) for each in sorted(found)]


def lines(path: Path) -> list[Any]:
    """The lines of a file, in any order: ours are sorted by name."""
    parsed = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return sorted(parsed, key=lambda line: json.dumps(line, sort_keys=True))


def stop(client: StdioClient) -> None:
    assert client.process.stdin is not None
    client.process.stdin.close()
    assert client.process.wait(60) == 0
