"""The sample of docs/integrations/langgraph.md runs."""

import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "langgraph.md"


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def embed_all(texts: Sequence[str]) -> list[list[float]]:
    words = ("umbrella", "red", "car", "the")
    return [[float(text.count(word)) for word in words] for text in texts]


def test_the_sample_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text(encoding="utf-8")
    sample = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert sample is not None
    monkeypatch.chdir(tmp_path)
    builder = StateGraph(State)
    builder.add_node("answer", lambda state: {"log": ["In the car."]})
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    names: dict[str, object] = {"builder": builder, "embed_all": embed_all}
    exec(compile(sample[1], str(PAGE), "exec"), names)
    assert (tmp_path / "agent.amber").is_dir()
