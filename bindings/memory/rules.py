"""A rule-based extractor, for use without a model: it classifies English and Chinese sentences by
the words that they contain.

    text -> sentences -> (layer, category), by words.toml -> compared with known memories

Invariants:
- The same text and the same known memories give the same decisions.
- A sentence that matches no rule is ignored, and the log has that as the reason: missing a fact is
  better than inventing one.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, Final, TypeAlias, final

from amberdb import Document
from amberdb.memory.types import Decision, Known, Layer

Classification: TypeAlias = tuple[Layer, str | None]
"""(layer, category); no category for a sentence that is only recognised as being about somebody."""

SAME: Final = 0.85
"""From this similarity on, 0 to 1, two sentences say the same."""
SIMILAR: Final = 0.5
"""From this similarity on a sentence is about the other one, and may update or delete it."""

_FLOURISHES = r"[^a-z]*(?:a lot|so much|then|tomorrow|sounds good|later|too)?"
_ACTORS = r"\b(?:i|we|he|she|they|my \w+|the \w+)(?:'ve|'s)? (?:just |finally |already |also )?"


@dataclass(frozen=True, slots=True)
class _Rule:
    layer: Layer
    category: str
    words: re.Pattern[str]


class _Rules:
    """words.toml, compiled."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        self.happens = [_rule(each) for each in words["happens"]]
        self.stays = [_rule(each) for each in words["stays"]]
        forms, markers = words["forms"], words["markers"]
        self.sentence = re.compile(forms["sentence"])
        self.edges: str = forms["edges"]
        self.attribution = _pattern(r"^(?:{zh})|^(?:{en})", markers["attribution"])
        self.dated = _pattern(r"{zh}|\b(?:{en})", markers["dated"])
        self.ends = _pattern(r"{zh}|\b(?:{en})", markers["ends"])
        self.acted = _pattern(_ACTORS.join(("{zh}|", r"(?:{en})\b")), markers["acted"])
        self.asks = _pattern(r"\?$|^(?:{zh})|^(?:{en})\b", markers["asks"])
        self.small_talk = _pattern(
            "^(?:{zh})" + forms["particles"] + r"\W*$|^(?:{en})\b" + _FLOURISHES + r"\W*$",
            markers["small_talk"],
        )
        self.subject = _pattern(
            r"^(?:{zh})\S\S+|^(?:{en})(?:'s|'re)? \w+(?: \w+)+", markers["subject"]
        )


@cache
def _rules() -> _Rules:
    data = files("amberdb.memory") / "words.toml"
    return _Rules(tomllib.loads(data.read_text(encoding="utf-8")))


def _rule(stored: Mapping[str, Any]) -> _Rule:
    return _Rule(stored["layer"], stored["category"], _pattern(r"{zh}|\b(?:{en})", stored))


def _pattern(form: str, words: Mapping[str, Any]) -> re.Pattern[str]:
    """`form` with the words of both languages in place of {zh} and {en}."""
    chinese, english = "|".join(words["zh"]), "|".join(words["en"])
    return re.compile(form.replace("{zh}", chinese).replace("{en}", english), re.I)


def classify(sentence: str) -> Classification | None:
    """The layer and category of a sentence; None when it holds nothing to remember."""
    rules = _rules()
    sentence = unicodedata.normalize("NFKC", sentence)
    if rules.asks.search(sentence) or rules.small_talk.search(sentence):
        return None
    is_dated = bool(rules.dated.search(sentence))
    order = (rules.happens, rules.stays) if is_dated else (rules.stays, rules.happens)
    for rule in chain(*order):
        if rule.words.search(sentence):
            return rule.layer, rule.category
    if rules.acted.search(sentence):
        return "event", "action"
    if is_dated:
        return "event", "other"
    return ("profile", None) if rules.subject.search(sentence) else None


@final
class RuleExtractor:
    """An extractor for Memory(extract=): one decision for each sentence of a text."""

    def __call__(self, text: str, known: Known) -> Sequence[Decision]:
        """The decisions on a text."""
        decisions: list[Decision] = []
        memories: dict[Layer, list[Document]] = {
            "profile": list(known.profile),
            "event": list(known.events),
        }
        for sentence in _sentences(text):
            classification = classify(sentence)
            if classification is None:
                reason = f"no rule matches: {sentence}"
                decisions.append(Decision(action="ignore", memory_layer="event", reason=reason))
            else:
                layer, category = classification
                decision = _decided(sentence, layer, category, memories[layer])
                memories[layer] = [
                    memory for memory in memories[layer] if memory["id"] != decision.memory_id
                ]
                decisions.append(decision)
        return decisions


def _sentences(text: str) -> Iterable[str]:
    """The sentences of a text, without punctuation at their ends except question marks."""
    rules = _rules()
    for match in rules.sentence.finditer(text):
        sentence = rules.attribution.sub("", match[0].strip()).strip()
        mark = "?" if sentence and unicodedata.normalize("NFKC", sentence[-1]) == "?" else ""
        sentence = sentence.strip(rules.edges)
        if sentence:
            yield sentence + mark


def _decided(
    sentence: str, layer: Layer, category: str | None, memories: Sequence[Document]
) -> Decision:
    """The decision on a sentence: a change of the most similar memory, or a new one."""
    nearest = max(memories, key=lambda each: _similarity(sentence, each["content"]), default=None)
    similarity = 0.0 if nearest is None else _similarity(sentence, nearest["content"])
    if nearest is not None:
        id, before = nearest["id"], nearest["content"]
        if _rules().ends.search(sentence) and similarity >= SIMILAR:
            reason = f"no longer true according to: {sentence}"
            return Decision(action="delete", memory_layer=layer, reason=reason, memory_id=id)
        if similarity >= SAME and len(sentence) <= len(before):
            reason = "known already"
            return Decision(action="ignore", memory_layer=layer, reason=reason, memory_id=id)
        if layer == "profile" and nearest["category"] == category and similarity >= SIMILAR:
            return Decision(
                action="update",
                memory_layer=layer,
                reason=f"more exact than: {before}",
                content=sentence,
                memory_id=id,
            )
    return Decision(
        action="insert",
        memory_layer=layer,
        reason=f"a sentence about {category or 'somebody'}",
        content=sentence,
        category=category,
    )


def _similarity(one: str, other: str) -> float:
    """0 to 1; 1 when one sentence contains the other."""
    one, other = one.casefold(), other.casefold()
    if one in other or other in one:
        return 1.0
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
