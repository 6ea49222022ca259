"""States and events of ADK as JSON texts.

Invariants:
- Whatever an agent puts into a state can be stored: integers of any size, NaN, half an emoji; a
  value that has no form in JSON is stored as its str().
- An event comes back equal, bytes of files included.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from google.adk.events.event import Event
from google.adk.sessions.state import State
from pydantic_core import to_jsonable_python

SCOPES: Final = {"app": State.APP_PREFIX, "user": State.USER_PREFIX, "temp": State.TEMP_PREFIX}


def by_scope(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A state, or its changes, by scope: `app`, `user` and `session`, without the prefixes; what
    is temporary is left out."""
    scoped: dict[str, dict[str, Any]] = {"app": {}, "user": {}, "session": {}, "temp": {}}
    for key, value in state.items():
        scope = next((name for name, prefix in SCOPES.items() if key.startswith(prefix)), "session")
        scoped[scope][key.removeprefix(SCOPES.get(scope, ""))] = value
    del scoped["temp"]
    plain: dict[str, dict[str, Any]] = to_jsonable_python(scoped, fallback=str, bytes_mode="base64")
    return plain


def merged(
    app: Mapping[str, Any], user: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """The state of a session as agents see it, with the prefixes."""
    return {
        **own,
        **{State.APP_PREFIX + key: value for key, value in app.items()},
        **{State.USER_PREFIX + key: value for key, value in user.items()},
    }


def to_text(value: object) -> str:
    """A value as JSON. Raises TypeError, ValueError."""
    text = json.dumps(value, ensure_ascii=False)
    # AmberDB stores no half of a surrogate pair; as an escape it is text like any other.
    return text if _is_unicode(text) else json.dumps(value)


def state_of(text: str | None) -> dict[str, Any]:
    """The state of a text; empty for None."""
    state: dict[str, Any] = {} if text is None else json.loads(text)
    return state


def event_text(event: Event) -> str:
    """An event as JSON."""
    return to_text(event.model_dump(mode="json", exclude_none=True))


def event_of(text: str) -> Event:
    """The event of event_text()."""
    return Event.model_validate(json.loads(text))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
