"""What reading costs beside SqliteSaver, in one run: printed (pytest -s), never judged."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState

import amberdb
from amberdb.integrations.langgraph import AmberSaver

THREADS, TURNS = 10, 10


def fill(saver: BaseCheckpointSaver[str], words: int) -> None:
    builder = StateGraph(MessagesState)
    answer = {"messages": [{"role": "assistant", "content": "answer " * words}]}
    builder.add_node("model", lambda state: answer)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    graph = builder.compile(checkpointer=saver)
    for turn in range(TURNS):
        for thread in range(THREADS):
            question = {"messages": [{"role": "user", "content": f"{turn} " * words}]}
            graph.invoke(question, {"configurable": {"thread_id": f"t{thread}"}})


def fill_numbers(saver: BaseCheckpointSaver[str], steps: int) -> None:
    builder = StateGraph(dict)
    builder.add_node("step", lambda state: {"n": state["n"] + 1})
    builder.add_edge(START, "step")
    builder.add_edge("step", END)
    graph = builder.compile(checkpointer=saver)
    for step in range(steps):
        for thread in range(THREADS):
            graph.invoke({"n": step}, {"configurable": {"thread_id": f"t{thread}"}})


def cpu_us(call: Callable[[int], object], rounds: int) -> float:
    """The CPU of a call, in microseconds: the least of three."""
    took: list[float] = []
    for _ in range(3):
        start_s = time.process_time()
        for number in range(rounds):
            call(number)
        took.append((time.process_time() - start_s) / rounds * 1e6)
    return min(took)


def costs(saver: BaseCheckpointSaver[str]) -> tuple[float, float]:
    def config(number: int) -> Any:
        return {"configurable": {"thread_id": f"t{number % THREADS}", "checkpoint_ns": ""}}

    count = len(list(saver.list(config(0))))
    return (
        cpu_us(lambda number: saver.get_tuple(config(number)), 200),
        cpu_us(lambda number: list(saver.list(config(number))), 10) / count,
    )


@pytest.mark.parametrize("state", ["messages", "numbers"])
def test_costs_beside_sqlite(tmp_path: Path, state: str) -> None:
    def prepare(saver: BaseCheckpointSaver[str]) -> None:
        if state == "messages":
            fill(saver, words=15)
        else:
            fill_numbers(saver, TURNS)

    with SqliteSaver.from_conn_string(str(tmp_path / "c.sqlite")) as sqlite:
        prepare(sqlite)
        with amberdb.open(tmp_path / "c.amber") as db:
            amber = AmberSaver(db)
            prepare(amber)
            rows = [("SqliteSaver", *costs(sqlite)), ("AmberSaver, memtable", *costs(amber))]
            db.checkpoint()
            rows.append(("AmberSaver, data.mdb", *costs(amber)))
        for name, get_us, list_us in rows:
            print(f"\n{state:10} {name:22} get_tuple {get_us:5.0f} us  listed {list_us:5.0f} us")
