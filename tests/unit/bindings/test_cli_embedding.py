"""--embed-url and --embed-model: vectors of a model behind the embeddings protocol."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from amberdb import EmbeddingError, QueryError
from amberdb._shared.embedding_endpoint import EmbeddingEndpoint
from amberdb.cli.serving.embedder import embedder_of
from support.command_line import CommandLine

WORDS = ["tea", "rain", "car"]


class Model:
    """A server of embeddings: a number for each word of WORDS."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answers: list[tuple[int, Any]] = []
        """Sent before anything else: status and body."""
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                request = json.loads(self.rfile.read(size))
                model.requests.append({**request, "path": self.path})
                model.keys.append(self.headers["authorization"])
                status, answer = model.answers.pop(0) if model.answers else model.answer(request)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, request: dict[str, Any]) -> tuple[int, Any]:
        data = [
            {"index": at, "embedding": [float(word in text) + 0.01 for word in WORDS]}
            for at, text in enumerate(request["input"])
        ]
        return 200, {"data": data[::-1]}  # in any order

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.close()


@pytest.fixture
def options(model: Model) -> list[str]:
    return ["--embed-url", model.url, "--embed-model", "words"]


@pytest.fixture
def cli(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    """With three documents, and an index of their vectors."""
    monkeypatch.setenv("AMBERDB_MODEL_KEY", "secret")
    run = CommandLine(tmp_path)
    texts = ["hot tea", "much rain", "red car"]
    run("put", "x", json.dumps([{"id": text[-3:], "content": text} for text in texts]))
    run("index add", "x", "vector", "v", "--source", "content", *options)
    yield run
    run.check()


def test_an_index_of_vectors_asks_for_their_length_and_embeds_what_is_there(
    cli: CommandLine, model: Model, options: list[str]
) -> None:
    (index,) = cli.read("index list")
    assert index["name"] == "vector:v:words"
    assert index["options"] == {"dim": 3, "source": "content"}
    assert model.requests[0]["path"] == "/v1/embeddings"
    assert sorted(model.requests[1]["input"]) == ["hot tea", "much rain", "red car"]
    assert set(model.keys) == {"Bearer secret"}
    found = cli("search", "x", "a car", *options, "--json").stdout
    assert json.loads(found)["hits"][0]["id"] == "car"


def test_what_is_written_is_embedded(cli: CommandLine, model: Model, options: list[str]) -> None:
    cli("put", "x", '{"id": "new", "content": "tea and rain"}', *options)
    lines = '{"id": "line", "content": "car and rain"}\n'
    cli("import", "x", "-", *options, input=lines)
    cli("update", "x", '{"content": "only tea"}', "car", *options)
    found = {each["id"]: each["v"] for each in cli.documents()}
    assert len(found) == 5
    best = cli.read("search", "x", "tea rain", *options, "--limit", "1")
    assert best["hits"][0]["id"] == "new"
    assert cli.read("search", "x", "car", *options, "--limit", "1")["hits"][0]["id"] == "line"
    cli("put", "x", '{"id": "without", "content": "tea"}')
    assert "v" not in cli.read("get", "x", "without")
    cli("index add", "x", "vector", "v", "--source", "content", *options)
    assert "v" in cli.read("get", "x", "without")


def test_words_and_meaning_together(cli: CommandLine, options: list[str]) -> None:
    cli("index add", "x", "text", "content")
    found = cli.read("search", "x", "much tea", *options, "--explain")
    assert set(found["how"]["indexes"]) == {"text:content", "vector:v:words"}
    assert "**much** rain" in cli("search", "x", "much", *options).stdout


def test_the_environment_names_the_server(
    cli: CommandLine, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMBERDB_EMBED_URL", model.url)
    monkeypatch.setenv("AMBERDB_EMBED_MODEL", "words")
    assert cli.read("search", "x", "tea", "--limit", "1")["hits"][0]["id"] == "tea"
    # Where no index wants a vector, that is said, and nothing else is missing.
    result = cli("put", "y", '{"id": "a", "content": "tea"}')
    assert result.stderr.count("warning: no vectors are made") == 1
    cli("index add", "y", "text", "content")
    assert cli.read("search", "y", "tea")["hits"][0]["id"] == "a"


def test_vectors_of_another_model_are_refused(cli: CommandLine, model: Model) -> None:
    other = ["--embed-url", model.url, "--embed-model", "other"]
    for verb in (
        ["search", "x", "tea"],
        ["put", "x", "{}"],
        ["update", "x", "{}", "tea"],
        ["import", "x", "-"],
    ):
        assert "give --embed-model words" in cli(*verb, *other, code=2, input="{}").stderr
    assert len(cli.documents()) == 3


def test_half_of_the_options_and_questions_without_sense(
    cli: CommandLine, options: list[str]
) -> None:
    assert "together" in cli("search", "x", "tea", *options[:2], code=2).stderr
    assert "together" in cli("put", "x", "{}", *options[2:], code=2).stderr
    cli("search", "x", "--query", "tea", *options, code=2)
    cli("search", "x", "tea", "--vector", "[1, 0, 0]", *options, code=2)


def test_a_server_that_fails_is_asked_again_and_then_an_error(
    cli: CommandLine, model: Model, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb._shared.model_server.PAUSE_S", 0.0)
    model.answers = [(503, "busy"), (200, {"data": []})]
    assert cli.read("search", "x", "tea", *options)["hits"]
    wrong: list[Any] = [
        b"no json",
        {"data": [{"embedding": ["x"]}]},
        {"data": [{"embedding": []}]},
    ]
    for answer in wrong:
        model.answers = [(200, answer)] * 3
        assert "no valid answer" in cli("search", "x", "tea", *options, code=2).stderr
        assert not model.answers
    model.answers = [(401, "who are you")]
    result = cli("put", "x", '{"content": "tea"}', *options, code=2)
    assert "status 401" in result.stderr
    assert "secret" not in result.stderr
    assert len(cli.documents()) == 3


def test_many_texts_are_asked_for_in_batches(model: Model) -> None:
    endpoint = EmbeddingEndpoint(model.url + "/", "words")
    vectors = endpoint(["tea" if n % 2 else "rain" for n in range(130)])
    assert [len(each["input"]) for each in model.requests] == [64, 64, 2]
    assert vectors[1][0] > 1 > vectors[0][0]
    model.answers = [(200, {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]})] * 3
    with pytest.raises(EmbeddingError, match="no valid answer"):
        EmbeddingEndpoint(model.url, "words", sleep=lambda _: None)(["a", "b"])
    endpoint.close()


def test_servers_take_the_options_too(model: Model) -> None:
    found = embedder_of(None, model.url, "words", None, None)
    assert (found["dim"], found["model"]) == (3, "words")
    assert found["embed"] is not None
    assert len(found["embed"](["tea"])) == 1
    asked = len(model.requests)
    assert embedder_of(None, model.url, "words", 5, "mine")["dim"] == 5
    assert len(model.requests) == asked
    assert embedder_of(None, None, None, None, None)["embed"] is None
    for wrong in (
        ("json:dumps", None, None, None, None),
        (None, None, None, 3, None),
        ("json:dumps", model.url, "words", 3, None),
        (None, model.url, None, 3, None),
    ):
        with pytest.raises(QueryError):
            embedder_of(*wrong)
