"""LangChain's cache of answers of models (BaseCache).

    {id: SHA-256 of llm_string and prompt, generations: [JSON of each], expires_at}

Invariants:
- A prompt has an answer only for the llm_string that it was stored with.
- Only generations and messages are made of what is stored. An entry that cannot be read, as one of
  another version of LangChain, is not there.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, final

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import message_to_dict, messages_from_dict
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)

from amberdb import Document
from amberdb._shared.clock import utc_now
from amberdb.integrations.langchain.documents import OWNER
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import twin

logger = logging.getLogger("amberdb.langchain")

KINDS: Final[dict[str, type[Generation]]] = {
    kind.__name__: kind
    for kind in (Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk)
}


@final
class AmberCache(BaseCache):
    """A cache in a collection.

        set_llm_cache(AmberCache("memory.amber", ttl=timedelta(days=7)))

    ttl    how long an answer is used; None: until clear()
    clock  seconds since 1970, that of the database

    Raises OpenError, and CollectionError for a collection that is another system's.
    """

    def __init__(
        self,
        db: DatabaseOrPath,
        *,
        ttl: timedelta | None = None,
        name: str = "langchain_cache",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if ttl is not None and ttl <= timedelta(0):
            raise ValueError(f"ttl={ttl!r}: give a time longer than zero, or None")
        self._ttl = ttl
        self._clock = clock
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._collection = opened.collection(name, expires_at="expires_at", owner=OWNER)

    def close(self) -> None:
        """Closes the database if it was given as a path."""
        self._opened.close()

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The generations that were stored for the prompt; None when there are none."""
        id = _id(prompt, llm_string)
        document = self._collection.get(id)
        return None if document is None else _generations(document)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Stores the generations for the prompt, in place of earlier ones. Raises TypeError and
        ValueError for what is no JSON."""
        document: dict[str, Any] = {
            "id": _id(prompt, llm_string),
            "generations": [json.dumps(_map(generation)) for generation in return_val],
        }
        if self._ttl is not None:
            document["expires_at"] = utc_now(self._clock) + self._ttl
        self._collection.put(document)

    def clear(self, **kwargs: Any) -> None:
        """Deletes all entries."""
        self._collection.delete_many({})

    alookup = twin("read", lookup)
    aupdate = twin("write", update)
    aclear = twin("write", clear)


def _id(prompt: str, llm_string: str) -> str:
    digest = hashlib.sha256()
    for text in (llm_string, prompt):
        encoded = text.encode(errors="surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()


def _map(generation: Generation) -> dict[str, Any]:
    kind = next(kind.__name__ for kind in type(generation).__mro__ if kind.__name__ in KINDS)
    stored: dict[str, Any] = {"kind": kind, "generation_info": generation.generation_info}
    if isinstance(generation, ChatGeneration):
        return {**stored, "message": message_to_dict(generation.message)}
    return {**stored, "text": generation.text}


def _generations(document: Document) -> list[Generation] | None:
    try:
        return [_generation(json.loads(text)) for text in document["generations"]]
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("an entry of the cache cannot be read and is passed over: %r", error)
        return None


def _generation(stored: dict[str, Any]) -> Generation:
    fields = {name: value for name, value in stored.items() if name != "kind"}
    if "message" in fields:
        (fields["message"],) = messages_from_dict([fields["message"]])
    return KINDS[stored["kind"]](**fields)
