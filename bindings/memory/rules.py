"""A rule-based extractor, for use without a model: it classifies English and Chinese sentences by
the words that they contain.

    text -> sentences -> (layer, category), by words.toml

Invariants:
- The same text gives the same decisions. What is known does not count here: Memory settles each
  new memory by what is committed (evidence.py).
- A sentence that matches no rule is ignored, and its text is not logged: missing a fact is better
  than inventing one.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, TypeAlias, final

from amberdb.memory.facts import fact_of, without_contractions
from amberdb.memory.types import Decision, Known, Layer

Classification: TypeAlias = tuple[Layer, str | None]
"""(layer, category); no category for a sentence that is only recognised as being about somebody."""

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
    fills_slot = fact_of(sentence).slot is not None
    sentence = without_contractions(unicodedata.normalize("NFKC", sentence).replace("\u2019", "'"))
    if rules.asks.search(sentence) or rules.small_talk.search(sentence):
        return None
    is_dated = not fills_slot and bool(rules.dated.search(sentence))
    order = (rules.happens, rules.stays) if is_dated else (rules.stays, rules.happens)
    for rule in rules.stays if fills_slot else chain(*order):
        if rule.words.search(sentence):
            return rule.layer, rule.category
    if fills_slot:
        return "profile", None
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
        return [_decided(sentence) for sentence in _sentences(text)]


def _sentences(text: str) -> Iterable[str]:
    """The sentences of a text, without punctuation at their ends except question marks."""
    rules = _rules()
    for match in rules.sentence.finditer(text):
        sentence = rules.attribution.sub("", match[0].strip()).strip()
        mark = "?" if sentence and unicodedata.normalize("NFKC", sentence[-1]) == "?" else ""
        sentence = sentence.strip(rules.edges)
        if sentence:
            yield sentence + mark


def _decided(sentence: str) -> Decision:
    """The decision on a sentence of which nothing is known."""
    classification = classify(sentence)
    if classification is None:
        return Decision(action="ignore", memory_layer="event", reason="no rule matches")
    layer, category = classification
    return Decision(
        action="insert",
        memory_layer=layer,
        reason=f"a sentence about {category or 'somebody'}",
        content=sentence,
        category=category,
    )
