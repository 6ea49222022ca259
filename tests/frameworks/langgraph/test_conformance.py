"""LangGraph's own suite for savers, each of its eight capabilities, and the number of its tests."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

import amberdb
from amberdb.integrations.langgraph import AmberSaver

TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


@checkpointer_test(name="AmberSaver")
async def amber_saver() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
    with amberdb.open(":memory:") as db:
        async with AmberSaver(db) as saver:
            yield saver


@pytest.mark.parametrize("capability", [capability.value for capability in Capability])
def test_capability(capability: str, record_property: Callable[[str, object], None]) -> None:
    report = asyncio.run(validate(amber_saver, capabilities={capability}))
    result = report.results[capability]
    assert result.detected
    assert result.failures == []
    assert result.tests_passed == TESTS[capability]
    record_property("framework_tests", result.tests_passed)
