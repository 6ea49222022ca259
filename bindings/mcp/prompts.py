"""The prompts that clients offer to people: recall first, and summarise a session.

Invariants:
- A prompt names the tools that it uses, and only those that the server has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from amberdb.mcp.answers import ToolError
from amberdb.mcp.options import ToolSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptText:
    """A prompt with one argument, which may be left out."""

    name: str
    title: str
    description: str
    argument: str
    argument_description: str
    core: str
    """The text for the tools of the official server."""
    full: str
    given: str
    """What the argument adds."""

    def text(self, tools: ToolSet, arguments: Mapping[str, str]) -> str:
        """The message of the user."""
        value = arguments.get(self.argument, "").strip()
        text = self.core if tools == "core" else self.full
        return text + (self.given.format(value) if value else "")


PROMPTS: Final = (
    PromptText(
        name="recall-first",
        title="Recall first",
        description="Look into memory before answering, and keep it true afterwards",
        argument="topic",
        argument_description="What the conversation is about",
        core="Before you answer, call search_nodes with the names and subjects of my question, and "
        "open_nodes for those that it finds. Use what you find, and say when it contradicts me. "
        "When I tell something lasting about myself, my work or my plans, store it: "
        "create_entities for what is new, add_observations for what is known, create_relations "
        "between them.",
        full="Before you answer, call recall with the names and subjects of my question. Use what "
        "you find, look at its dates, and say when it contradicts me. When I tell something "
        "lasting about myself, my work or my plans, call remember, one sentence a call; when "
        "something has changed, call update with the id and the reason. Remember no passwords or "
        "keys. Call forget only when I ask for it.",
        given=" The conversation is about: {}",
    ),
    PromptText(
        name="summarise-session",
        title="Summarise the session",
        description="Store what this conversation should leave behind",
        argument="entity",
        argument_description="Whom or what it was about, by default the user",
        core="Look back at this conversation. For what later sessions should know, call "
        "search_nodes first, so that nothing is stored twice; then create_entities, "
        "add_observations and create_relations. Leave out what only mattered today, and "
        "passwords and keys. Then list what you stored.",
        full="Look back at this conversation. For each decision, preference, fact and open task "
        "that later sessions should know, call recall first: update what has changed, and remember "
        "what is new, one sentence a call, with layer event for what happened and profile for "
        "what lasts. Leave out what only mattered today, and passwords and keys. Then list what "
        "you stored.",
        given=" It was about: {}",
    ),
)


def prompt_named(name: str) -> PromptText:
    """The prompt with this name. Raises ToolError."""
    for prompt in PROMPTS:
        if prompt.name == name:
            return prompt
    raise ToolError(f"there is no prompt {name!r}, only {', '.join(p.name for p in PROMPTS)}")
