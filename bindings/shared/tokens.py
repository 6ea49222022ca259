"""How many tokens a text has: an estimate, or a model's own count through tiktoken.

Invariants:
- tiktoken is imported at the first count, and never required: without it, or when it cannot load
  the encoding of a model, the estimate counts, and the log says so once.
"""

import importlib
import logging
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("amberdb.tokens")


def count_tokens(text: str) -> int:
    """One token for each Han character, and one for every four other characters."""
    han = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return han + -(-(len(text) - han) // 4)


def token_counter(model: str) -> Callable[[str], int]:
    """A function that counts tokens as a model of OpenAI does, through tiktoken where it is
    installed, and as count_tokens() does elsewhere: `AgentContext(db,
    count_tokens=token_counter("gpt-4o"))`. `model` is the name of a model or of an encoding."""
    mutex = threading.Lock()
    loaded: list[Callable[[str], int]] = []

    def count(text: str) -> int:
        with mutex:  # an encoding may come over the network, once
            if not loaded:
                loaded.append(_counter(model))
        return loaded[0](text)

    return count


def _counter(model: str) -> Callable[[str], int]:
    try:
        tiktoken: Any = importlib.import_module("tiktoken")
        try:
            encoding = tiktoken.encoding_for_model(model)
        except KeyError:
            encoding = tiktoken.get_encoding(model)
    except Exception as error:
        logger.warning(
            "tokens of %s are estimated, as tiktoken cannot count them: %s", model, error
        )
        return count_tokens
    # Text of a user may hold "<|endoftext|>", which tiktoken refuses unless told that it is text.
    return lambda text: len(encoding.encode(text, disallowed_special=()))
