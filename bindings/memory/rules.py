"""A rule-based extractor, for use without a model: sentences of English and Chinese, sorted by the
words that give them away.

    text -> sentences -> (layer, category), by memory_words.toml -> compared with what is known

Invariants:
- The same text and the same knowledge give the same decisions.
- What no rule fits is ignored, and the log says so: a rule-based memory rather misses something
  than makes something up.
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

Sorted: TypeAlias = tuple[Layer, str | None]
"""(layer, category); no category where a sentence only looks like something that stays true."""

SAME: Final = 0.85
"""From this likeness on, 0 to 1, two sentences say the same."""
ALIKE: Final = 0.5
"""From this on a sentence is about the other: what it takes back, or says more exactly."""

_FLOURISHES = r"[^a-z]*(?:a lot|so much|then|tomorrow|sounds good|later|too)?"
_ACTORS = r"\b(?:i|we|he|she|they|my \w+|the \w+)(?:'ve|'s)? (?:just |finally |already |also )?"


@dataclass(frozen=True, slots=True)
class _Rule:
    layer: Layer
    category: str
    words: re.Pattern[str]


class _Rules:
    """memory_words.toml, compiled."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        self.happens = [_rule(each) for each in words["happens"]]
        self.stays = [_rule(each) for each in words["stays"]]
        forms, signs = words["forms"], words["signs"]
        self.sentence = re.compile(forms["sentence"])
        self.edges: str = forms["edges"]
        self.told = _pattern(r"^(?:{zh})|^(?:{en})", signs["told"])
        self.dated = _pattern(r"{zh}|\b(?:{en})", signs["dated"])
        self.ends = _pattern(r"{zh}|\b(?:{en})", signs["ends"])
        self.acted = _pattern(_ACTORS.join(("{zh}|", r"(?:{en})\b")), signs["acted"])
        self.asks = _pattern(r"\?$|^(?:{zh})|^(?:{en})\b", signs["asks"])
        self.talk = _pattern(
            "^(?:{zh})" + forms["particles"] + r"\W*$|^(?:{en})\b" + _FLOURISHES + r"\W*$",
            signs["talk"],
        )
        self.somebody = _pattern(
            r"^(?:{zh})\S\S+|^(?:{en})(?:'s|'re)? \w+(?: \w+)+", signs["somebody"]
        )


@cache
def _rules() -> _Rules:
    data = files("amberdb.memory") / "words.toml"
    return _Rules(tomllib.loads(data.read_text(encoding="utf-8")))


def _rule(stored: Mapping[str, Any]) -> _Rule:
    return _Rule(stored["layer"], stored["category"], _pattern(r"{zh}|\b(?:{en})", stored))


def _pattern(form: str, words: Mapping[str, Any]) -> re.Pattern[str]:
    """`form` with the words of both languages in it."""
    chinese, english = "|".join(words["zh"]), "|".join(words["en"])
    return re.compile(form.replace("{zh}", chinese).replace("{en}", english), re.I)


def sorted_into(sentence: str) -> Sorted | None:
    """Where a sentence belongs; None when it says nothing to be remembered."""
    rules = _rules()
    sentence = unicodedata.normalize("NFKC", sentence)
    if rules.asks.search(sentence) or rules.talk.search(sentence):
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
    return ("profile", None) if rules.somebody.search(sentence) else None


@final
class RuleExtractor:
    """For Memory(extract=): decisions of a text, sentence by sentence."""

    def __call__(self, text: str, known: Known) -> Sequence[Decision]:
        decisions: list[Decision] = []
        told: dict[Layer, list[Document]] = {
            "profile": list(known.profile),
            "event": list(known.events),
        }
        for sentence in _sentences(text):
            found = sorted_into(sentence)
            if found is None:
                reason = f"no rule takes this for something to be remembered: {sentence}"
                decisions.append(Decision(action="ignore", memory_layer="event", reason=reason))
            else:
                decision = _decided(sentence, *found, told[found[0]])
                told[found[0]] = [
                    each for each in told[found[0]] if each["id"] != decision.memory_id
                ]
                decisions.append(decision)
        return decisions


def _sentences(text: str) -> Iterable[str]:
    """Without marks at their ends, but for a question's."""
    rules = _rules()
    for match in rules.sentence.finditer(text):
        sentence = rules.told.sub("", match[0].strip()).strip()
        mark = "?" if sentence and unicodedata.normalize("NFKC", sentence[-1]) == "?" else ""
        sentence = sentence.strip(rules.edges)
        if sentence:
            yield sentence + mark


def _decided(
    sentence: str, layer: Layer, category: str | None, told: Sequence[Document]
) -> Decision:
    """A new memory, or what it does to the one that is most like it."""
    nearest = max(told, key=lambda each: _likeness(sentence, each["content"]), default=None)
    likeness = 0.0 if nearest is None else _likeness(sentence, nearest["content"])
    if nearest is not None:
        id, before = nearest["id"], nearest["content"]
        if _rules().ends.search(sentence) and likeness >= ALIKE:
            reason = f"no longer so, since it is said: {sentence}"
            return Decision(action="delete", memory_layer=layer, reason=reason, memory_id=id)
        if likeness >= SAME and len(sentence) <= len(before):
            reason = "is known already"
            return Decision(action="ignore", memory_layer=layer, reason=reason, memory_id=id)
        if layer == "profile" and nearest["category"] == category and likeness >= ALIKE:
            return Decision(
                action="update",
                memory_layer=layer,
                reason=f"says more exactly what was: {before}",
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


def _likeness(one: str, other: str) -> float:
    """0 to 1; of a sentence that holds the other whole, 1."""
    one, other = one.casefold(), other.casefold()
    if one in other or other in one:
        return 1.0
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
