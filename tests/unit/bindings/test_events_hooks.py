"""Hooks that record what an agent of another framework does: the events, their spans, and that no
hook hinders the agent. LangChain and the Agents SDK are played by objects of the same shape."""

import asyncio
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace as Made
from typing import Any
from uuid import uuid4

import pytest

from amberdb.events import AgentEvent, AmberEventStore, EventType, InMemoryEventStore, Recorder
from amberdb.events.hooks import (
    langchain_callback,
    openai_agents_processor,
    opentelemetry_processor,
)
from support.databases import OpenDatabase


def recorded(work: Callable[[Recorder], None], store: Any = None) -> list[AgentEvent]:
    """The events of a recorder, the oldest first, without AGENT_INIT."""

    async def whole() -> list[AgentEvent]:
        async with Recorder(store or InMemoryEventStore(), "assistant", session_id="main") as one:
            work(one)
            return (await one.get_memory(limit=None))[-2::-1]

    return asyncio.run(whole())


def names(events: list[AgentEvent]) -> list[str]:
    return [each.event_type.name for each in events]


# -- OpenTelemetry -----------------------------------------------------------------------------


def test_opentelemetry_spans(open_db: OpenDatabase) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")

    def work(recorder: Recorder) -> None:
        provider = sdk.TracerProvider()
        provider.add_span_processor(opentelemetry_processor(recorder))
        tracer = provider.get_tracer("test")
        agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": "c1"}
        with tracer.start_as_current_span("invoke_agent planner", attributes=agent):
            tool = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "weather",
                "gen_ai.tool.call.arguments": '{"city": "Oslo"}',
            }
            with tracer.start_as_current_span("execute_tool weather", attributes=tool) as span:
                span.set_attribute("gen_ai.tool.call.result", '{"degrees": [21, 23]}')
            failing = tracer.start_as_current_span("execute_tool weather", attributes=tool)
            with pytest.raises(ValueError, match="no city"), failing:
                raise ValueError("no city")
            model = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 12}
            with tracer.start_as_current_span("chat m1", attributes=model) as span:
                span.set_attribute("gen_ai.output.messages", '[{"role": "assistant"}]')
            with tracer.start_as_current_span("GET /"):
                pass
        provider.shutdown()

    events = recorded(work, AmberEventStore(open_db()))
    assert names(events) == [
        "TOOL_CALL_START",
        "TOOL_CALL_SUCCESS",
        "TOOL_CALL_START",
        "TOOL_CALL_ERROR",
        "MODEL_RESPONSE",
        "CUSTOM",
        "CUSTOM",
    ]
    start, done, _, failed, answer, request, agent = events
    assert start.data == {"tool_name": "weather", "arguments": {"city": "Oslo"}}
    assert done.data["result"] == {"degrees": [21, 23]}
    assert (failed.data["error_type"], failed.data["arguments"]) == ("ValueError", {"city": "Oslo"})
    assert "no city" in failed.data["error"]
    assert answer.data["response"] == [{"role": "assistant"}]
    assert answer.data["attributes"]["gen_ai.usage.input_tokens"] == 12
    assert answer.data["success"]
    assert (request.data["name"], agent.session_id, start.session_id) == ("GET /", "c1", "main")
    assert agent.metadata["parent_id"] is None
    for each in events[:-1]:
        assert each.metadata["parent_id"] == agent.metadata["span_id"]
        assert each.metadata["trace_id"] == agent.metadata["trace_id"]
    assert start.metadata["span_id"] == done.metadata["span_id"]
    assert "duration_ms" not in start.metadata
    assert 0 <= done.metadata["duration_ms"] <= agent.metadata["duration_ms"]
    assert start.timestamp <= done.timestamp <= agent.timestamp


def is_ours(span: Any) -> bool:
    return bool(span.name != "GET /")


def test_opentelemetry_spans_that_are_wanted() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")

    def work(recorder: Recorder) -> None:
        provider = sdk.TracerProvider()
        provider.add_span_processor(opentelemetry_processor(recorder, accepts=is_ours))
        for name in ("GET /", "work"):
            with provider.get_tracer("test").start_as_current_span(name):
                pass

    (event,) = recorded(work)
    assert event.data["name"] == "work"


# -- OpenAI Agents -----------------------------------------------------------------------------


def span_of(kind: str, span_id: str, parent_id: str | None = None, **fields: Any) -> Any:
    """A span of the Agents SDK."""
    return Made(
        trace_id="trace_1",
        span_id=span_id,
        parent_id=parent_id,
        started_at="2026-03-01T12:00:00.000000+00:00",
        ended_at=None,
        error=fields.pop("error", None),
        span_data=Made(type=kind, **fields),
    )


def ended(span: Any) -> Any:
    span.ended_at = "2026-03-01T12:00:00.250000+00:00"
    return span


def test_traces_of_the_agents_sdk() -> None:
    def work(recorder: Recorder) -> None:
        hook = openai_agents_processor(recorder)
        trace = Made(trace_id="trace_1", name="Support", group_id="chat_7", metadata={"v": 1})
        hook.on_trace_start(trace)
        agent = span_of("agent", "s1", name="planner", tools=["weather"], handoffs=None)
        hook.on_span_start(agent)
        call = span_of("function", "s2", "s1", name="weather", input=None, output=None)
        hook.on_span_start(call)
        call.span_data.input, call.span_data.output = '{"city": "Oslo"}', {"degrees": [21]}
        hook.on_span_end(ended(call))
        error = {"message": "Error running tool", "data": {"tool_name": "weather"}}
        call = span_of("function", "s3", "s1", name="weather", input="", output=None, error=error)
        hook.on_span_start(call)
        hook.on_span_end(ended(call))
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}, {"id": "2"}]}
        usage = {"input_tokens": 5}
        chat = span_of("generation", "s4", "s1", output=[message], model="m1", usage=usage)
        hook.on_span_end(ended(chat))
        answer = Made(output=[Made(type="function_call")], output_text="", model="m2", usage=usage)
        hook.on_span_end(ended(span_of("response", "s5", "s1", response=answer, input="hi")))
        hook.on_span_end(ended(span_of("handoff", "s6", "s1", from_agent="a", to_agent="b")))
        agent.error = {"message": "Max turns exceeded", "data": None}
        hook.on_span_end(ended(agent))
        hook.on_trace_end(trace)
        hook.force_flush()
        hook.shutdown()

    events = recorded(work)
    assert names(events) == [
        "TOOL_CALL_START",
        "TOOL_CALL_SUCCESS",
        "TOOL_CALL_START",
        "TOOL_CALL_ERROR",
        "MODEL_RESPONSE",
        "MODEL_RESPONSE",
        "CUSTOM",
        "AGENT_ERROR",
        "CUSTOM",
    ]
    _, done, _, failed, chat, response, handoff, agent, trace = events
    assert {each.session_id for each in events} == {"chat_7"}
    assert done.data["arguments"] == {"city": "Oslo"}
    assert done.data["result"] == {"degrees": [21]}
    assert done.metadata == {
        "trace_id": "trace_1",
        "span_id": "s2",
        "parent_id": "s1",
        "duration_ms": 250.0,
    }
    assert failed.data["error"] == "Error running tool"
    assert (chat.data["tool_calls_count"], chat.data["usage"]) == (2, {"input_tokens": 5})
    assert chat.data["response"][0]["tool_calls"][1] == {"id": "2"}
    assert (response.data["model"], response.data["tool_calls_count"]) == ("m2", 1)
    assert handoff.data == {"type": "handoff", "from_agent": "a", "to_agent": "b"}
    assert agent.data["error"] == "Max turns exceeded"
    assert (trace.data["name"], trace.data["metadata"]) == ("Support", {"v": 1})
    assert trace.metadata["duration_ms"] >= 0


# -- LangChain ---------------------------------------------------------------------------------


def test_callbacks_of_langchain() -> None:
    chain, model, tool, tool2, part = (uuid4() for _ in range(5))

    def work(recorder: Recorder) -> None:
        hook = langchain_callback(recorder)
        hook.on_chain_start(None, {"q": "?"}, run_id=chain, name="agent", metadata={"thread_id": 7})
        messages = [[Made(type="human", content="?", model_dump=lambda: {"content": "?"})]]
        inside = {"parent_run_id": chain}
        hook.on_chat_model_start({"id": ["x", "Chat"]}, messages, run_id=model, **inside)
        hook.on_llm_new_token("A", run_id=model)
        call = {"name": "weather", "args": {"city": "Oslo"}, "id": "1"}
        message = Made(content="", tool_calls=[call], usage_metadata={"input_tokens": 3})
        result = Made(generations=[[Made(text="", message=message)]], llm_output=None)
        hook.on_llm_end(result, run_id=model, **inside)
        inputs = {"city": "Oslo"}
        serialized = {"name": "weather"}
        hook.on_tool_start(serialized, "{'city'", run_id=tool, inputs=inputs, **inside)
        output = Made(type="tool", content=[{"degrees": 21}], artifact=None)
        hook.on_tool_end(output, run_id=tool, **inside)
        hook.on_tool_start(serialized, "plain", run_id=tool2, **inside)
        hook.on_tool_error(KeyError("city"), run_id=tool2, **inside)
        hook.on_chain_start({"name": "part"}, "x", run_id=part, **inside)
        hook.on_chain_error(ValueError("deep"), run_id=part, **inside)
        hook.on_custom_event("progress", {"done": 1}, run_id=chain)
        hook.on_chain_error(ValueError("deep"), run_id=chain)
        hook.on_chain_end({"of": "a run that it has not seen"}, run_id=uuid4())

    events = recorded(work)
    assert names(events) == [
        "MODEL_RESPONSE",
        "TOOL_CALL_START",
        "TOOL_CALL_SUCCESS",
        "TOOL_CALL_START",
        "TOOL_CALL_ERROR",
        "CUSTOM",
        "CUSTOM",
        "AGENT_ERROR",
        "CUSTOM",
    ]
    answer, start, done, _, failed, inner, custom, error, unseen = events
    assert {each.session_id for each in events[:-1]} == {"7"}
    assert unseen.session_id == "main"
    assert answer.data["tool_calls"] == [
        {"name": "weather", "args": {"city": "Oslo"}, "id": "1"},
    ]
    assert (answer.data["name"], answer.data["usage"]) == ("Chat", {"input_tokens": 3})
    assert start.data == {"tool_name": "weather", "arguments": {"city": "Oslo"}}
    assert done.data["result"] == [{"degrees": 21}]
    assert (failed.data["error_type"], failed.data["arguments"]) == ("KeyError", "plain")
    assert (inner.data["name"], inner.data["error"]) == ("part", "deep")
    assert custom.data == {"type": "event", "name": "progress", "data": {"done": 1}}
    assert (error.data["error"], error.data["inputs"]) == ("deep", {"q": "?"})
    assert done.metadata["span_id"] == str(tool)
    for each in (answer, start, done, failed, inner):
        assert each.metadata["parent_id"] == str(chain)
        assert each.metadata["trace_id"] == str(chain)
    assert 0 <= done.metadata["duration_ms"] <= error.metadata["duration_ms"]


def test_no_hook_hinders_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        recorder = Recorder(InMemoryEventStore(), "assistant", queue_size=1)
        hooks = openai_agents_processor(recorder), langchain_callback(recorder)
        for _ in range(3):  # the queue is full: it is counted, and nothing waits
            hooks[0].on_span_end(ended(span_of("handoff", "s")))
        assert recorder.dropped == 2
        hooks[0].on_span_end(None)
        hooks[1].on_tool_end("result")
        async with recorder:
            pass
        hooks[0].on_span_end(ended(span_of("handoff", "s")))
        assert (
            "OpenAIAgentsHook.on_span_end recorded nothing: the recorder is closed" in caplog.text
        )

    with caplog.at_level(logging.ERROR):
        asyncio.run(work())


def test_a_hook_is_of_the_class_that_its_framework_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class BaseCallbackHandler:
        def on_what_comes_later(self) -> str:
            return "ignored"

    base = Made(BaseCallbackHandler=BaseCallbackHandler)
    monkeypatch.setitem(sys.modules, "langchain_core.callbacks.base", base)

    def work(recorder: Recorder) -> None:
        hook: Any = langchain_callback(recorder)
        kind: type[Any] = BaseCallbackHandler
        assert isinstance(hook, kind)
        assert hook.on_what_comes_later() == "ignored"
        hook.on_custom_event("seen", None)

    assert recorded(work)[0].event_type is EventType.CUSTOM
