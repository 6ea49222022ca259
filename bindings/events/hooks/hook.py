"""What the hooks share: they turn the spans of a framework into events of a recorder.

An event of a span has in its metadata `trace_id`, `span_id`, `parent_id`, and the last one
`duration_ms`.

Invariants:
- A hook raises nothing and waits for nothing: it is called inside the work of the agent. What it
  cannot record is logged.
- Values keep their structure: text that is a JSON map or list is stored as one.
"""

import functools
import importlib
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, ParamSpec

from amberdb._shared.storable import text_of
from amberdb.events.event import EventType
from amberdb.events.recorder import Recorder

logger = logging.getLogger("amberdb.events")

OPEN_MAX: Final = 10_000
"""Calls that have begun and not ended, as far as a hook keeps them: some never end."""

_P = ParamSpec("_P")


class Hook:
    """The base of hooks."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def note(
        self,
        event_type: EventType,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        session_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Records an event; what has no value is left out."""
        self._recorder.record_nowait(
            event_type,
            {name: value for name, value in data.items() if value is not None},
            metadata=metadata,
            session_id=session_id,
            timestamp=timestamp,
        )


def harmless(method: Callable[_P, None]) -> Callable[_P, None]:
    """The method of a hook, without its exceptions."""

    @functools.wraps(method)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:
            logger.error("%s recorded nothing: %s", method.__qualname__, text_of(error))

    return called


def with_base(hook: type[Hook], module: str, name: str) -> type[Any]:
    """The class of a hook as a subclass of the framework's, where the framework is installed: it
    may ask for instances of that, and add methods to it."""
    try:
        base: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return hook
    return type(hook.__name__, (hook, base), {})


def parsed(value: Any) -> Any:
    """Text that is a JSON map or list as such; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


def public(value: Any) -> dict[str, Any]:
    """The public attributes of an object of any class."""
    names: list[str] = [*getattr(value, "__dict__", ())]
    for kind in type(value).__mro__:
        slots: Any = getattr(kind, "__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return {name: getattr(value, name, None) for name in names if not name.startswith("_")}
