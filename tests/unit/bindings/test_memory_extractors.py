"""Extractors: rules, measured on labelled sentences of both languages, and a model behind a real
HTTP server that answers well, badly, late or not at all.

sentences.txt: set|layer|category|sentence. "known" are those that the rules were written with,
"mended" those that they were mended with; after "unseen" was measured, only a fallback came that
takes what is said of somebody for a profile."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database, ExtractionError, Ordered
from amberdb._shared.model_server import PAUSE_MAX_S
from amberdb.memory import ChatExtractor, Decision, Known, Memory, RuleExtractor
from amberdb.memory.evidence import keys_of
from amberdb.memory.model import SCHEMA
from amberdb.memory.rules import classify

SENTENCES = [
    line.split("|")
    for line in (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
]
TOLD = [
    line.split("|")
    for line in (Path(__file__).parent / "told.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
"""(action, what was told, what is told then)"""
SAMPLE = "用户今天告诉我他是一名软件工程师，毕业于北京大学。他下午参加了技术分享会。"


# -- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "floor"), [("known", 1.0), ("mended", 0.95), ("unseen", 0.8)])
def test_precision_and_recall_of_the_rules(name: str, floor: float) -> None:
    right: Counter[str] = Counter()
    said: Counter[str] = Counter()
    meant: Counter[str] = Counter()
    categories = 0
    rows = [row for row in SENTENCES if row[0] == name]
    for _, layer, category, sentence in rows:
        found = classify(sentence)
        got = "ignore" if found is None else found[0]
        said[got] += 1
        meant[layer] += 1
        right[layer] += got == layer
        categories += (found or ("ignore", "")) == (layer, category)
    assert len(rows) >= 40
    print(f"\n{name}: {len(rows)} sentences, category right {categories / len(rows):.2f}")
    for layer in ("profile", "event", "ignore"):
        precision, recall = right[layer] / said[layer], right[layer] / meant[layer]
        print(f"  {layer}: precision {precision:.2f}, recall {recall:.2f}")
        assert min(precision, recall) >= floor


def test_the_sample_of_the_users_document(db: Database) -> None:
    memory = Memory(db, extract=RuleExtractor())
    outcomes = memory.remember("user123", SAMPLE, auto_extract=True)
    assert [(each.action, each.memory_layer) for each in outcomes] == [
        ("insert", "profile"),
        ("insert", "event"),
    ]
    (fact,) = memory.profile("user123")
    (event,) = memory.events("user123")
    assert fact["content"] == "他是一名软件工程师，毕业于北京大学"
    assert (event["content"], event["category"]) == ("他下午参加了技术分享会", "meeting")
    again = memory.remember("user123", SAMPLE, auto_extract=True)
    assert [each.action for each in again] == ["ignore", "ignore"]
    assert len(memory.logs()) == 4


@pytest.mark.parametrize("action", ["ignore", "update", "delete", "insert"])
def test_what_is_told_after_something_else_changes_it_only_when_that_is_certain(
    db: Database, action: str
) -> None:
    memory = Memory(db, extract=RuleExtractor())
    pairs = [pair[1:] for pair in TOLD if pair[0] == action]
    wrong: list[str] = []
    for owner, (before, then) in enumerate(pairs):
        memory.remember(f"u{owner}", before, auto_extract=True)
        (outcome,) = memory.remember(f"u{owner}", then, auto_extract=True)
        kept = {each["content"] for each in memory.profile(f"u{owner}")}
        count = {"ignore": 1, "update": 1, "delete": 0, "insert": 2}[action]
        if outcome.action != action or len(kept) != count:
            wrong.append(f"{before} | {then} -> {outcome.action}, kept {kept}")
    assert len(pairs) >= 20
    assert wrong == []


def test_a_sentence_that_is_not_worth_keeping_is_not_kept_in_the_log(db: Database) -> None:
    memory = Memory(db, extract=RuleExtractor())
    (ignored,) = memory.remember("u", "你好！", auto_extract=True)
    assert ignored.action == "ignore"
    (entry,) = memory.logs(entity_id="u")
    assert "你好" not in str(entry)


def test_an_event_that_comes_again_another_day_is_another_event(db: Database) -> None:
    day_s = time.time() - 3 * 86_400
    memory = Memory(db, extract=RuleExtractor(), clock=lambda: day_s)
    for _ in range(3):
        for _ in range(2):
            memory.remember("u", "我今天做了透析", auto_extract=True)
        day_s += 86_400
    assert len(memory.events("u")) == 3


def test_a_fact_is_known_however_many_came_after_it(db: Database) -> None:
    memory = Memory(db, extract=RuleExtractor())
    told = [f"I like number {n}" for n in range(200)]
    for fact in told:
        memory.remember("u", fact, auto_extract=True)
    assert {each["content"] for each in memory.profile("u")} == set(told)
    (outcome,) = memory.remember("u", told[0], auto_extract=True)
    assert outcome.action == "ignore"
    assert len(memory.profile("u")) == len(told)


def test_two_that_tell_the_same_at_once_leave_one_memory(db: Database) -> None:
    both = threading.Barrier(2)

    def late(text: str, known: Known) -> Sequence[Decision]:
        decisions = RuleExtractor()(text, known)
        both.wait()  # both have looked before either is stored
        return decisions

    memory = Memory(db, extract=late)
    tell = [
        threading.Thread(
            target=memory.remember, args=("u", "I like tea"), kwargs={"auto_extract": True}
        )
        for _ in range(2)
    ]
    for thread in tell:
        thread.start()
    for thread in tell:
        thread.join()
    assert [each["content"] for each in memory.profile("u")] == ["I like tea"]
    assert {each["action"] for each in memory.logs(entity_id="u")} == {"insert", "ignore"}


def test_a_memory_that_goes_while_an_extractor_thinks_is_no_error(db: Database) -> None:
    def slow(text: str, known: Known) -> Sequence[Decision]:
        decisions = RuleExtractor()(text, known)
        for fact in known.profile:
            memory.delete("profile", fact["id"])
        return decisions

    memory = Memory(db, extract=slow)
    for text, action in (
        ("My name is Ann", "insert"),
        ("My name is Anna", "insert"),
        ("My name is Anna", "insert"),
        ("I like tea", "insert"),
        ("I no longer like tea", "insert"),
    ):
        (outcome,) = memory.remember("u", text, auto_extract=True)
        assert outcome.action == action


def test_memories_of_an_older_version_are_known(db: Database) -> None:
    db.collection(
        "profile",
        indexes=[Ordered("created_at")],
        expires_at="expiry_date",
        required={"entity_id": str, "content": str, "memory_type": str},
    ).put({"id": "old", "memory_type": "user", "entity_id": "u", "content": "I live in Paris"})
    memory = Memory(db, extract=RuleExtractor())
    db.migrate()
    (outcome,) = memory.remember("u", "I live in Berlin", auto_extract=True)
    assert (outcome.action, outcome.memory_id) == ("update", "old")


@pytest.mark.parametrize(
    "unit", ["I like 3 apples and ", "我喜欢3个苹果", "not ", "1", "在", "ok, "]
)
def test_a_long_sentence_costs_its_length(unit: str) -> None:
    text = unit * (64_000 // len(unit)) + "z"
    started = time.perf_counter()
    RuleExtractor()(text, Known("user", "u", [], [], datetime.now(UTC)))
    keys_of("profile", text)
    assert time.perf_counter() - started < 30  # a quadratic pattern takes minutes


# -- a model ---------------------------------------------------------------------------------


class Model:
    """A server that gives the answers it was told to, one after the other."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.retry_after = "7"
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                model.asked.append(json.loads(self.rfile.read(size)))
                model.tokens.append(self.headers["Authorization"])
                status, answer = model.answers.pop(0)
                if status == 0:  # hangs up
                    self.close_connection = True
                    return
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", model.retry_after)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def says(self, decisions: Any, *, fenced: bool = False) -> None:
        content = json.dumps({"decisions": decisions}, ensure_ascii=False)
        if fenced:
            content = f"```json\n{content}\n```"
        self.answers.append((200, {"choices": [{"message": {"content": content}}]}))

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.close()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def extractor(model: Model, pauses: list[float]) -> Iterator[ChatExtractor]:
    made = ChatExtractor(model.url, "a-model", api_key="secret", sleep=pauses.append)
    yield made
    made.close()


def insert(content: str, **more: Any) -> dict[str, Any]:
    given = {"action": "insert", "memory_layer": "event", "reason": "new", "content": content}
    return {**given, **more}


def test_a_model_is_told_what_is_known_and_its_answer_is_stored(
    db: Database, model: Model, extractor: ChatExtractor
) -> None:
    memory = Memory(db, extract=extractor)
    (fact,) = memory.remember("u", "is an engineer", memory_layer="profile", category="career")
    model.says(
        [
            {
                "action": "update",
                "memory_layer": "profile",
                "reason": "补充了职级",
                "content": "is a senior engineer",
                "ref": "p1",
            },
            insert("参加了分享会", category="meeting", expiry_date="2099-01-01T00:00:00+08:00"),
            {"action": "ignore", "memory_layer": "event", "reason": "small talk"},
        ],
        fenced=True,
    )
    outcomes = memory.remember("u", "some text", auto_extract=True)
    assert [each.action for each in outcomes] == ["update", "insert", "ignore"]
    found = memory.get("profile", fact.memory_id)
    assert found is not None
    assert found["content"] == "is a senior engineer"
    (event,) = memory.events("u")
    assert event["category"] == "meeting"
    assert event["expiry_date"] == datetime(2098, 12, 31, 16, tzinfo=UTC)
    (asked,) = model.asked
    assert asked["model"] == "a-model"
    assert asked["response_format"]["json_schema"]["schema"] == SCHEMA
    question = json.loads(asked["messages"][1]["content"])
    assert question["text"] == "some text"
    assert question["remembered"] == [
        {"ref": "p1", "category": "career", "content": "is an engineer"}
    ]
    assert fact.memory_id not in json.dumps(asked)
    assert model.tokens == ["Bearer secret"]


@pytest.mark.parametrize(
    ("failing", "pause_s"),
    [((503, b""), 0.5), ((429, b""), 7.0), ((0, b""), 0.5), ((200, b"{"), 0.5)],
)
def test_a_model_is_asked_again(
    db: Database,
    model: Model,
    extractor: ChatExtractor,
    pauses: list[float],
    failing: tuple[int, bytes],
    pause_s: float,
) -> None:
    memory = Memory(db, extract=extractor)
    model.answers.append(failing)
    model.says([insert("at last")])
    memory.remember("u", "some text", auto_extract=True)
    assert [each["content"] for each in memory.events("u")] == ["at last"]
    assert pauses == [pause_s]


def test_no_server_makes_it_wait_longer_than_the_cap(
    db: Database, model: Model, extractor: ChatExtractor, pauses: list[float]
) -> None:
    memory = Memory(db, extract=extractor)
    model.retry_after = "86400"
    model.answers.append((429, b""))
    model.says([insert("at last")])
    memory.remember("u", "some text", auto_extract=True)
    assert pauses == [PAUSE_MAX_S]
    assert PAUSE_MAX_S <= 60


def test_pauses_grow_up_to_the_cap(model: Model, pauses: list[float]) -> None:
    extractor = ChatExtractor(model.url, "m", attempts=9, sleep=pauses.append)
    model.answers += [(500, b"")] * 9
    with pytest.raises(ExtractionError, match="9 attempts"):
        extractor("text", Known("user", "u", [], [], datetime.now(UTC)))
    extractor.close()
    assert pauses == [min(0.5 * 2**n, PAUSE_MAX_S) for n in range(8)]
    assert pauses[-1] == PAUSE_MAX_S


def test_a_model_that_is_down_stores_nothing(
    db: Database, model: Model, extractor: ChatExtractor, pauses: list[float]
) -> None:
    memory = Memory(db, extract=extractor)
    model.answers += [(500, b"")] * 3
    with pytest.raises(ExtractionError, match="3 attempts: status 500"):
        memory.remember("u", "some text", auto_extract=True)
    assert pauses == [0.5, 1.0]
    model.answers.append((401, b"no such key"))
    with pytest.raises(ExtractionError, match="401: no such key"):
        memory.remember("u", "some text", auto_extract=True)
    assert memory.logs() == []


BAD: dict[str, Any] = {
    "unknown action": [insert("x", action="drop")],
    "unknown layer": [insert("x", memory_layer="log")],
    "unknown field": [insert("x", sql="DROP TABLE")],
    "no reason": [{"action": "insert", "memory_layer": "event", "content": "x"}],
    "no content": [insert(" ")],
    "a ref that was not given": [insert("x", action="update", ref="e9")],
    "a ref of another layer": [insert("x", action="update", ref="p1")],
    "no ref": [{"action": "delete", "memory_layer": "event", "reason": "r"}],
    "a date that is none": [insert("x", expiry_date="soon")],
    "a date without zone": [insert("x", expiry_date="2099-01-01")],
    "not a list": {"action": "insert"},
    "numbers": [1, 2],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_refused(
    db: Database, model: Model, extractor: ChatExtractor, name: str
) -> None:
    memory = Memory(db, extract=extractor)
    memory.remember("u", "is known", memory_layer="profile")
    for _ in range(3):
        model.says(BAD[name])
    with pytest.raises(ExtractionError, match="answer is invalid"):
        memory.remember("u", "some text", auto_extract=True)
    assert memory.events("u") == []
    assert len(memory.logs()) == 1


def test_nobody_listens(db: Database, pauses: list[float]) -> None:
    extractor = ChatExtractor("http://127.0.0.1:9/v1", "m", attempts=2, sleep=pauses.append)
    known = Known("user", "u", [], [], datetime.now(UTC))
    with pytest.raises(ExtractionError, match="2 attempts"):
        extractor("text", known)
    extractor.close()
