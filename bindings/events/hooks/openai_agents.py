"""Traces of the OpenAI Agents SDK as events.

    agents.add_trace_processor(openai_agents_processor(recorder))

A span of a function is a call of a tool, one of a generation or response a MODEL_RESPONSE, one of
an agent that fails an AGENT_ERROR; any other span, and a trace, is CUSTOM.

Invariants:
- The session of a trace is its group_id, or the session of the task in which it begins.
"""

# The objects of the framework have no static type here, so their parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

import time
from collections import OrderedDict
from datetime import datetime
from typing import Any, Final, NamedTuple

from amberdb.events.event import EventType
from amberdb.events.hooks.hook import OPEN_MAX, Hook, harmless, parsed, public, with_base
from amberdb.events.recorder import Recorder

_MODEL: Final = frozenset({"generation", "response"})


class _Trace(NamedTuple):
    session_id: str
    began_s: float


def openai_agents_processor(recorder: Recorder) -> Any:
    """A TracingProcessor that records traces and spans."""
    return with_base(OpenAIAgentsHook, "agents.tracing", "TracingProcessor")(recorder)


class OpenAIAgentsHook(Hook):
    """From openai_agents_processor()."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self._traces: OrderedDict[str, _Trace] = OrderedDict()

    @harmless
    def on_trace_start(self, trace: Any) -> None:
        """Called by the SDK."""
        session_id = getattr(trace, "group_id", None) or self._recorder.session_id
        self._traces[trace.trace_id] = _Trace(session_id, time.perf_counter())
        if len(self._traces) > OPEN_MAX:
            self._traces.popitem(last=False)

    @harmless
    def on_trace_end(self, trace: Any) -> None:
        """Called by the SDK."""
        metadata: dict[str, Any] = {"trace_id": trace.trace_id, "parent_id": None}
        made = self._traces.pop(trace.trace_id, None)
        if made is not None:
            metadata["duration_ms"] = round((time.perf_counter() - made.began_s) * 1000, 3)
        data = {"type": "trace", "name": trace.name, "metadata": getattr(trace, "metadata", None)}
        session_id = None if made is None else made.session_id
        self.note(EventType.CUSTOM, data, metadata, session_id=session_id)

    @harmless
    def on_span_start(self, span: Any) -> None:
        """Called by the SDK."""
        made = span.span_data
        if made.type == "function":
            data = {"tool_name": made.name, "arguments": parsed(made.input)}
            self._note(span, EventType.TOOL_CALL_START, data)

    @harmless
    def on_span_end(self, span: Any) -> None:
        """Called by the SDK."""
        kind, fields, error = span.span_data.type, public(span.span_data), _error(span)
        if kind == "function":
            data = {
                "tool_name": fields.pop("name"),
                "arguments": parsed(fields.pop("input", None)),
                "result": None if error else parsed(fields.pop("output", None)),
            }
            done = EventType.TOOL_CALL_ERROR if error else EventType.TOOL_CALL_SUCCESS
            self._note(span, done, {**fields, **data, **error})
        elif kind in _MODEL:
            self._note(span, EventType.MODEL_RESPONSE, {**_response(fields), **error})
        else:
            failed = kind == "agent" and error
            done = EventType.AGENT_ERROR if failed else EventType.CUSTOM
            self._note(span, done, {"type": kind, **fields, **error})

    def shutdown(self) -> None:
        """Called by the SDK; the recorder is closed by its owner."""

    def force_flush(self) -> None:
        """Called by the SDK; the recorder stores by itself."""

    def _note(self, span: Any, kind: EventType, data: dict[str, Any]) -> None:
        began, ended = _time(span.started_at), _time(span.ended_at)
        metadata: dict[str, Any] = {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
        }
        if began is not None and ended is not None:
            metadata["duration_ms"] = (ended - began).total_seconds() * 1000
        trace = self._traces.get(span.trace_id)
        session_id = None if trace is None else trace.session_id
        self.note(kind, data, metadata, session_id=session_id, timestamp=ended or began)


def _response(fields: dict[str, Any]) -> dict[str, Any]:
    """The data of a MODEL_RESPONSE."""
    response = fields.pop("response", None)
    output = fields.pop("output", None) if response is None else getattr(response, "output", None)
    text = getattr(response, "output_text", None)
    calls = [each for each in output or [] if _type(each) == "function_call"]
    for message in output or []:
        inner: Any = message.get("tool_calls") if isinstance(message, dict) else None
        calls += inner or []
    return {
        **fields,
        "response": output if text is None else text,
        "tool_calls_count": len(calls),
        "tool_calls": calls or None,
        "model": fields.get("model") or getattr(response, "model", None),
        "usage": fields.get("usage") or getattr(response, "usage", None),
        "success": True,
    }


def _type(item: Any) -> Any:
    return item.get("type") if isinstance(item, dict) else getattr(item, "type", None)


def _error(span: Any) -> dict[str, Any]:
    error = span.error
    if not error:
        return {}
    details = error.get("data")
    return {
        "error": error.get("message") or "",
        "error_type": "error",
        "details": details,
        "success": False,
    }


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
