"""Callbacks of LangChain and LangGraph as events.

    chain.invoke(question, config={"callbacks": [langchain_callback(recorder)]})

A run of a tool is a call of a tool, one of a model a MODEL_RESPONSE, one of a chain or retriever
CUSTOM; a chain that fails and has no parent is an AGENT_ERROR.

Invariants:
- The session of a run is `session_id` or `thread_id` of its metadata, that of its parent, or that
  of the task.
"""

# The objects of the framework have no static type here, so their parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from amberdb._shared.storable import text_of
from amberdb.events.event import EventType
from amberdb.events.hooks.hook import OPEN_MAX, Hook, harmless, with_base
from amberdb.events.recorder import Recorder


def langchain_callback(recorder: Recorder) -> Any:
    """A BaseCallbackHandler that records the runs of models, tools, chains and retrievers."""
    return with_base(LangChainHook, "langchain_core.callbacks.base", "BaseCallbackHandler")(
        recorder
    )


@final
@dataclass(frozen=True, slots=True)
class _Run:
    """A run that has begun."""

    name: str
    input: Any
    run_id: Any
    parent_id: Any
    trace_id: str
    session_id: str | None
    began_s: float = field(default_factory=time.perf_counter)

    def metadata(self) -> dict[str, Any]:
        return {
            "trace_id": self.trace_id,
            "span_id": str(self.run_id),
            "parent_id": None if self.parent_id is None else str(self.parent_id),
        }


class LangChainHook(Hook):
    """From langchain_callback()."""

    raise_error = False
    run_inline = True
    """Called in the task of the run, so that its session is known and order is kept."""
    ignore_llm = ignore_chat_model = ignore_chain = ignore_agent = False
    ignore_retriever = ignore_custom_event = False
    ignore_retry = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    # -- models ------------------------------------------------------------------------------

    @harmless
    def on_llm_start(self, serialized: Any, prompts: Sequence[str], **facts: Any) -> None:
        """Called by LangChain."""
        self._begin(serialized, list(prompts), facts)

    @harmless
    def on_chat_model_start(self, serialized: Any, messages: Sequence[Any], **facts: Any) -> None:
        """Called by LangChain."""
        self._begin(serialized, list(messages), facts)

    @harmless
    def on_llm_end(self, response: Any, **facts: Any) -> None:
        """Called by LangChain."""
        self._end(EventType.MODEL_RESPONSE, _response(response), facts, input_name="input")

    @harmless
    def on_llm_error(self, error: BaseException, **facts: Any) -> None:
        """Called by LangChain."""
        data = {**_error(error), "success": False}
        self._end(EventType.MODEL_RESPONSE, data, facts, input_name="input")

    # -- tools -------------------------------------------------------------------------------

    @harmless
    def on_tool_start(
        self, serialized: Any, input_str: str, *, inputs: Any = None, **facts: Any
    ) -> None:
        """Called by LangChain."""
        run = self._begin(serialized, input_str if inputs is None else inputs, facts)
        data = {"tool_name": run.name, "arguments": run.input}
        self.note(EventType.TOOL_CALL_START, data, run.metadata(), session_id=run.session_id)

    @harmless
    def on_tool_end(self, output: Any, **facts: Any) -> None:
        """Called by LangChain."""
        data = {"result": output}
        if getattr(output, "type", None) == "tool":  # a ToolMessage
            data = {"result": output.content, "artifact": getattr(output, "artifact", None)}
        self._end(EventType.TOOL_CALL_SUCCESS, data, facts, input_name="arguments")

    @harmless
    def on_tool_error(self, error: BaseException, **facts: Any) -> None:
        """Called by LangChain."""
        self._end(EventType.TOOL_CALL_ERROR, _error(error), facts, input_name="arguments")

    # -- chains and retrievers ---------------------------------------------------------------

    @harmless
    def on_chain_start(self, serialized: Any, inputs: Any, **facts: Any) -> None:
        """Called by LangChain."""
        self._begin(serialized, inputs, facts)

    @harmless
    def on_chain_end(self, outputs: Any, **facts: Any) -> None:
        """Called by LangChain."""
        self._end(EventType.CUSTOM, {"type": "chain", "outputs": outputs}, facts)

    @harmless
    def on_chain_error(self, error: BaseException, **facts: Any) -> None:
        """Called by LangChain."""
        is_root = facts.get("parent_run_id") is None
        kind = EventType.AGENT_ERROR if is_root else EventType.CUSTOM
        self._end(kind, {"type": "chain", **_error(error)}, facts)

    @harmless
    def on_retriever_start(self, serialized: Any, query: str, **facts: Any) -> None:
        """Called by LangChain."""
        self._begin(serialized, query, facts)

    @harmless
    def on_retriever_end(self, documents: Sequence[Any], **facts: Any) -> None:
        """Called by LangChain."""
        self._end(EventType.CUSTOM, {"type": "retriever", "outputs": list(documents)}, facts)

    @harmless
    def on_retriever_error(self, error: BaseException, **facts: Any) -> None:
        """Called by LangChain."""
        self._end(EventType.CUSTOM, {"type": "retriever", **_error(error)}, facts)

    @harmless
    def on_custom_event(self, name: str, data: Any, **facts: Any) -> None:
        """Called by LangChain."""
        run = self._runs.get(str(facts.get("run_id")))
        self.note(
            EventType.CUSTOM,
            {"type": "event", "name": name, "data": data},
            {} if run is None else run.metadata(),
            session_id=None if run is None else run.session_id,
        )

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        """Called by LangChain; the whole response comes with on_llm_end()."""

    def on_text(self, *_: Any, **__: Any) -> None:
        """Called by LangChain; it is in the inputs and outputs."""

    def on_agent_action(self, *_: Any, **__: Any) -> None:
        """Called by LangChain; the tool records itself."""

    def on_agent_finish(self, *_: Any, **__: Any) -> None:
        """Called by LangChain; the chain records itself."""

    # -- inside ------------------------------------------------------------------------------

    def _begin(self, serialized: Any, given: Any, facts: Mapping[str, Any]) -> _Run:
        run_id, parent_id = facts["run_id"], facts.get("parent_run_id")
        parent = self._runs.get(str(parent_id))
        metadata: Mapping[str, Any] = facts.get("metadata") or {}
        session_id = metadata.get("session_id") or metadata.get("thread_id")
        if session_id is None:
            session_id = self._recorder.session_id if parent is None else parent.session_id
        run = _Run(
            name=_name(serialized, facts),
            input=given,
            run_id=run_id,
            parent_id=parent_id,
            trace_id=str(run_id) if parent is None else parent.trace_id,
            session_id=str(session_id),
        )
        self._runs[str(run_id)] = run
        if len(self._runs) > OPEN_MAX:
            self._runs.popitem(last=False)
        return run

    def _end(
        self,
        kind: EventType,
        data: Mapping[str, Any],
        facts: Mapping[str, Any],
        *,
        input_name: str = "inputs",
    ) -> None:
        run = self._runs.pop(str(facts["run_id"]), None)
        if run is None:  # it began before the hook was there
            run = _Run("", None, facts["run_id"], facts.get("parent_run_id"), "", None)
        duration_ms = round((time.perf_counter() - run.began_s) * 1000, 3)
        name = "tool_name" if input_name == "arguments" else "name"
        self.note(
            kind,
            {name: run.name, input_name: run.input, **data},
            {**run.metadata(), "duration_ms": duration_ms},
            session_id=run.session_id,
        )


def _name(serialized: Any, facts: Mapping[str, Any]) -> str:
    if name := facts.get("name"):
        return str(name)
    made: Mapping[str, Any] = serialized or {}
    return str(made.get("name") or (made.get("id") or [""])[-1])


def _response(response: Any) -> dict[str, Any]:
    """The data of a MODEL_RESPONSE, of an LLMResult."""
    first = response.generations[0][0]
    message = getattr(first, "message", None)
    calls = getattr(message, "tool_calls", None) or []
    usage = getattr(message, "usage_metadata", None)
    if usage is None:
        usage = (getattr(response, "llm_output", None) or {}).get("token_usage")
    return {
        "response": first.text or getattr(message, "content", ""),
        "tool_calls_count": len(calls),
        "tool_calls": list(calls) or None,
        "usage": usage,
        "success": True,
    }


def _error(error: BaseException) -> dict[str, Any]:
    return {"error": text_of(error), "error_type": type(error).__name__}
