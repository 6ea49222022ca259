"""OpenTelemetry spans as events.

    provider.add_span_processor(opentelemetry_processor(recorder))

A span with `gen_ai.operation.name` execute_tool is a call of a tool, one of a model a
MODEL_RESPONSE, one of an agent that fails an AGENT_ERROR; any other span is CUSTOM. The attributes
are in the data.

Invariants:
- A span is one event, when it ends; a call of a tool is one when it begins, too.
"""

# The objects of the framework have no static type here, so their parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, final

from amberdb.events.event import EventType
from amberdb.events.hooks.hook import Hook, harmless, parsed, with_base
from amberdb.events.recorder import Recorder

_OPERATION: Final = "gen_ai.operation.name"
_MODEL: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_AGENT: Final = frozenset({"invoke_agent", "create_agent"})
_SESSION: Final = ("gen_ai.conversation.id", "session.id")


def opentelemetry_processor(
    recorder: Recorder, *, accepts: Callable[[Any], bool] | None = None
) -> Any:
    """A SpanProcessor that records spans: those that `accepts` returns True for, or all."""
    kind = with_base(OpenTelemetryHook, "opentelemetry.sdk.trace", "SpanProcessor")
    return kind(recorder, accepts)


class OpenTelemetryHook(Hook):
    """From opentelemetry_processor()."""

    def __init__(self, recorder: Recorder, accepts: Callable[[Any], bool] | None = None) -> None:
        super().__init__(recorder)
        self._accepts = accepts

    @harmless
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Called by the tracer."""
        made = _Span(span)
        if made.operation == "execute_tool" and self._is_accepted(span):
            data = {"tool_name": made.tool_name, "arguments": made.arguments}
            self._note(made, EventType.TOOL_CALL_START, data, span.start_time)

    @harmless
    def on_end(self, span: Any) -> None:
        """Called by the tracer."""
        if self._is_accepted(span):
            made = _Span(span)
            self._note(made, *made.event(), span.end_time)

    def shutdown(self) -> None:
        """Called by the tracer; the recorder is closed by its owner."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Called by the tracer; the recorder stores by itself."""
        return True

    def _is_accepted(self, span: Any) -> bool:
        return self._accepts is None or self._accepts(span)

    def _note(self, made: "_Span", kind: EventType, data: Mapping[str, Any], at_ns: Any) -> None:
        self.note(
            kind,
            data,
            made.metadata(),
            session_id=made.session_id,
            timestamp=None if at_ns is None else datetime.fromtimestamp(at_ns / 1e9, UTC),
        )


@final
class _Span:
    """A span that is read."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self._attributes: dict[str, Any] = {
            name: parsed(value) for name, value in (span.attributes or {}).items()
        }
        self.operation = self._attributes.get(_OPERATION)
        self.tool_name = self._attributes.get("gen_ai.tool.name", span.name)
        self.arguments = self._attributes.get("gen_ai.tool.call.arguments")
        self._error = _error(span)

    @property
    def session_id(self) -> str | None:
        found = (self._attributes.get(name) for name in _SESSION)
        return next((str(each) for each in found if each is not None), None)

    def metadata(self) -> dict[str, Any]:
        span, parent = self._span, self._span.parent
        made = {
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
            "parent_id": None if parent is None else f"{parent.span_id:016x}",
        }
        if span.end_time is not None:
            made["duration_ms"] = (span.end_time - span.start_time) / 1e6
        return made

    def event(self) -> tuple[EventType, dict[str, Any]]:
        """The event of a span that has ended."""
        whole = {"name": self._span.name, "attributes": self._attributes, **self._error}
        if self.operation == "execute_tool":
            call = {"tool_name": self.tool_name, "arguments": self.arguments, **whole}
            if self._error:
                return EventType.TOOL_CALL_ERROR, call
            result = self._attributes.get("gen_ai.tool.call.result")
            return EventType.TOOL_CALL_SUCCESS, {**call, "result": result}
        if self.operation in _MODEL:
            response = self._attributes.get("gen_ai.output.messages")
            answer = {"response": response, "success": not self._error}
            return EventType.MODEL_RESPONSE, {**answer, **whole}
        if self.operation in _AGENT and self._error:
            return EventType.AGENT_ERROR, whole
        return EventType.CUSTOM, whole


def _error(span: Any) -> dict[str, Any]:
    """The error of a span, from its status and the exception that it has recorded."""
    if span.status is None or span.status.status_code.name != "ERROR":
        return {}
    recorded: list[Mapping[str, Any]] = [
        event.attributes or {} for event in span.events if event.name == "exception"
    ]
    last = recorded[-1] if recorded else {}
    kind = last.get("exception.type") or (span.attributes or {}).get("error.type") or "error"
    return {
        "error": span.status.description or last.get("exception.message") or "",
        "error_type": str(kind),
    }
