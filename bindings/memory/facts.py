"""Facts: what a sentence says about somebody, as far as its words tell it for certain.

    "I don't really like coffee"   core "i like coffee", negated
    "I no longer like running"     core "i like running", negated, and was so before
    "My name is Anna"              slot "name", of oneself

A sentence makes another one obsolete for certain only where it negates the very same (equal cores),
or where both fill one slot of one subject, which has one value at a time.

Invariants:
- Sentences with different numbers, names or objects have different cores.
- A slot is filled by a plain statement about now: an addition ("also", "on weekends"), a hedge, a
  condition, a past or a further clause make it an ordinary sentence.
- The time is linear in the length of the sentence.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeAlias, final

SLOT_CHARACTERS_MAX: Final = 100
"""A longer sentence says more than the value of a slot."""
SELF: Final = "self"
"""The subject of what somebody says of oneself."""

_Pair: TypeAlias = tuple[re.Pattern[str], str]

_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_BLANKS: Final = re.compile(r"\s+")
_BLANK_BESIDE_HAN: Final = re.compile(rf"(?<=[{_HAN}]) | (?=[{_HAN}])")
_EDGES: Final = " \t\r\n,.;:!?\u3001\u3002\u2026~\"'\u201c\u201d\u2018()"
_DOES_NOT: Final = re.compile(r"\bdoes not (?:really )?([a-z]+)")
_CAPITALIZED: Final = re.compile(r"(?:the )?[A-Z0-9]\S*(?: (?:of|de|la|upon|the|&|[A-Z0-9]\S*))*")


@final
@dataclass(frozen=True, slots=True)
class Fact:
    """What a sentence says."""

    text: str
    """The sentence, normalized: equal for an exact repeat."""
    core: str
    """The text without negation and emphasis."""
    is_negated: bool
    has_ended: bool
    """It is negated, and was so before."""
    slot: str | None
    """The subject and the slot that the sentence fills; None for other sentences."""


def fact_of(sentence: str) -> Fact:
    """What a sentence says, of any length."""
    words = _words()
    text = normalized(sentence)
    core = without_contractions(text)
    slot = words.slot(sentence, core) if len(core) <= SLOT_CHARACTERS_MAX else None
    core, ends = _replaced(core, words.ends)
    core, does = _DOES_NOT.subn(lambda match: _third_person(match[1]), core)
    core, negations = _replaced(core, words.negations)
    is_negated = bool((ends + does + negations) % 2)
    has_ended = ends > 0
    if is_negated:
        core, ended = words.ended.subn("", core)
        has_ended = has_ended or ended > 0
    core = _replaced(_replaced(core, words.synonyms)[0], words.emphasis)[0]
    return Fact(text, normalized(core), is_negated, has_ended and is_negated, slot)


def normalized(text: str) -> str:
    """NFKC, casefolded, without punctuation at the ends; blanks are one, and none beside Han."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return _BLANK_BESIDE_HAN.sub("", _BLANKS.sub(" ", text)).strip(_EDGES)


def without_contractions(text: str) -> str:
    """The text with "do not" in place of "don't", and so on."""
    return _replaced(text, _words().contractions)[0]


class _Slot(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    """Of a value that is not the only one."""


class _Words:
    """facts.toml, compiled."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        self.contractions = _pairs(words["contractions"])
        self.ends = _pairs(words["ends"])
        self.negations = _pairs(words["negations"])
        self.synonyms = _pairs(words["synonyms"])
        self.emphasis = _pairs((each, "") for each in words["emphasis"])
        self.ended = re.compile(words["ended"])
        slots = words["slots"]
        english, chinese = "|".join(slots["relations_en"]), "|".join(slots["relations_zh"])
        subjects = {
            "who": rf"(?:i|the user|user|(?:my|the user's) (?P<of>{english}))",
            "whose": rf"(?:my|the user's|user's|(?:my|the user's) (?P<of>{english})'s)",
            "who_zh": rf"(?:\u6211|\u7528\u6237|(?:\u6211|\u7528\u6237)\u7684?(?P<of>{chinese}))",
        }
        self._more = re.compile("|".join(slots["more"]))
        self._slots = [
            _Slot(
                each["slot"],
                re.compile(_filled(each["pattern"], subjects)),
                re.compile("|".join(_unless(slots, each["unless"]))) if "unless" in each else None,
            )
            for each in slots["patterns"]
        ]

    def slot(self, sentence: str, core: str) -> str | None:
        """The subject and the slot that a sentence fills."""
        core = _replaced(core, self.emphasis)[0].strip()
        if self._more.search(core):
            return None
        for slot in self._slots:
            match = slot.pattern.fullmatch(core)
            if match is None:
                continue
            found = match.groupdict()
            name = found.get("Value")
            if name is not None and not _is_name(name, sentence):
                continue
            if slot.unless is not None and slot.unless.search(found["value"]):
                continue
            return f"{found['of'] or SELF}/{slot.name}"
        return None


@cache
def _words() -> _Words:
    data = files("amberdb.memory") / "facts.toml"
    return _Words(tomllib.loads(data.read_text(encoding="utf-8")))


def _pairs(stored: Iterable[Sequence[str]]) -> list[_Pair]:
    return [(re.compile(pattern), replacement) for pattern, replacement in stored]


def _replaced(text: str, pairs: Iterable[_Pair]) -> tuple[str, int]:
    """The text after all replacements, and their number."""
    count = 0
    for pattern, replacement in pairs:
        text, found = pattern.subn(replacement, text)
        count += found
    return text, count


def _filled(pattern: str, subjects: Mapping[str, str]) -> str:
    """The pattern with its subject."""
    for name, subject in subjects.items():
        pattern = pattern.replace(f"{{{name}}}", subject)
    return pattern


def _unless(slots: Mapping[str, Any], name: str) -> list[str]:
    places = [f"{place}$" for place in slots["places"]] if name == "not_employer" else []
    return [*slots[name], *places]


def _is_name(value: str, sentence: str) -> bool:
    """Whether the words of a value are capitalized in the sentence, as those of a name are."""
    plain = _BLANKS.sub(" ", unicodedata.normalize("NFKC", sentence))
    at = plain.casefold().find(value)
    return at >= 0 and _CAPITALIZED.fullmatch(plain[at : at + len(value)].strip(_EDGES)) is not None


def _third_person(verb: str) -> str:
    """The form of a verb that follows he, she or it."""
    if verb in ("have", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}[verb]
    if verb.endswith(("s", "sh", "ch", "x", "z")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}s"
