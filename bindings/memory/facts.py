"""Facts: what a sentence says about somebody, as far as its words tell it for certain.

    "I don't really like coffee"   claims: not "i like coffee"
    "I hate coffee"                claims: "i hate coffee", and so not "i like coffee"
    "I no longer like running"     claims: not "i like running", which was so before
    "My name is Anna"              slot "name", of oneself

A sentence makes another one obsolete for certain only where it claims the very contrary, or where
both fill one slot of one subject, which has one value at a time.

Invariants:
- Sentences with different numbers, names or objects claim different statements.
- Only a negation of the whole sentence, right behind its subject, counts: "I know he does not",
  "without sugar" and "not only" are parts of what is said.
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
CLAIM_CHARACTERS_MAX: Final = 1_000
"""A longer text says more than one thing: it contradicts no other."""
SELF: Final = "self"
"""The subject of what somebody says of oneself."""

_Pair: TypeAlias = tuple[re.Pattern[str], str]

_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_BLANKS: Final = re.compile(r"\s+")
_BLANK_BESIDE_HAN: Final = re.compile(rf"(?<=[{_HAN}]) | (?=[{_HAN}])")
_EDGES: Final = " \t\r\n,.;:!?\u3001\u3002\u2026~"
"""Without quotation marks: what is quoted is not said of oneself."""
_CAPITAL: Final = "[A-Z0-9\u00c0-\u00de\u0391-\u03a9\u0410-\u042f]"
_CAPITALIZED: Final = re.compile(
    rf"(?:the )?{_CAPITAL}\S*(?: (?:of|de|la|upon|the|&|{_CAPITAL}\S*))*"
)


@final
class Claim(NamedTuple):
    """That a statement is so, or is not."""

    statement: str
    """Without negation, emphasis and articles."""
    is_negated: bool

    def contrary(self) -> "Claim":
        """The claim that contradicts it."""
        return Claim(self.statement, not self.is_negated)


@final
@dataclass(frozen=True, slots=True)
class Fact:
    """What a sentence says."""

    text: str
    """The sentence, normalized: equal for an exact repeat."""
    claims: tuple[Claim, ...]
    """What it says, and what that implies."""
    has_ended: bool
    """It is negated, and was so before."""
    slot: str | None
    """The subject and the slot that the sentence fills; None for other sentences."""
    names: frozenset[str]
    """Its capitalized words, without the first: US is not us."""


def fact_of(sentence: str) -> Fact:
    """What a sentence says, of any length."""
    words = _words()
    text = normalized(sentence)
    if len(text) > CLAIM_CHARACTERS_MAX:
        return Fact(text, (), has_ended=False, slot=None, names=frozenset())
    plain = without_contractions(text)
    slot = words.slot(sentence, plain) if len(plain) <= SLOT_CHARACTERS_MAX else None
    claims, has_ended = words.claims(plain)
    return Fact(text, claims, has_ended, slot, _names(sentence))


def normalized(text: str) -> str:
    """NFKC, casefolded, without punctuation at the ends; blanks are one, and none beside Han."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return _BLANK_BESIDE_HAN.sub("", _BLANKS.sub(" ", text)).strip(_EDGES)


def without_contractions(text: str) -> str:
    """The text with "do not" in place of "don't", and so on."""
    return _replaced(text, _words().contractions)[0]


class _Negation(NamedTuple):
    pattern: re.Pattern[str]
    statement: str
    has_ended: bool
    is_third_person: bool

    def of(self, text: str) -> str | None:
        """The statement that a text negates."""
        match = self.pattern.fullmatch(text)
        if match is None:
            return None
        if self.is_third_person:
            return f"{match[1]} {_third_person(match[2])}{match[3]}"
        return match.expand(self.statement)


class _Slot(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    """Of a value that is not the only one."""


class _Words:
    """facts.toml, compiled."""

    def __init__(self, words: Mapping[str, Any], values: Mapping[str, Sequence[str]]) -> None:
        self.contractions = _pairs(words["contractions"])
        self._emphasis = _pairs((each, "") for each in words["emphasis"])
        self._degrees = _pairs((each, "") for each in words["degrees"])
        self._inner = re.compile(words["inner"])
        self._ended = re.compile(words["ended"])
        slots, claims = words["slots"], words["claims"]
        english, chinese = "|".join(slots["relations_en"]), "|".join(slots["relations_zh"])
        related = f"(?:{chinese}|{'|'.join(claims['relations_zh'])})"
        whom = {
            "en": claims["subject_en"] + claims["adverbs_en"],
            "zh": claims["subject_zh"].replace("{relation_zh}", related) + claims["adverbs_zh"],
        }
        self._implied = _pairs(
            (_filled(pattern, whom), implied) for pattern, implied in words["implied"]
        )
        self._negations = [_negation(each, whom) for each in claims["negations"]]
        self._contraries = [_negation(each, whom) for each in claims["contraries"]]
        subjects = {
            "who": rf"(?:i|the user|user|(?:my|the user's) (?P<of>{english}))",
            "whose": rf"(?:my|the user's|user's|(?:my|the user's) (?P<of>{english})'s)",
            "who_zh": rf"(?:\u6211|\u7528\u6237|(?:\u6211|\u7528\u6237)\u7684?(?P<of>{chinese}))",
            **{name: f"(?:{'|'.join(listed)})" for name, listed in values.items()},
        }
        self._more = re.compile("|".join(slots["more"]))
        self._slots = [
            _Slot(
                each["slot"],
                re.compile(_filled(each["pattern"], subjects)),
                re.compile("|".join(slots[each["unless"]])) if "unless" in each else None,
            )
            for each in slots["patterns"]
        ]

    def claims(self, text: str) -> tuple[tuple[Claim, ...], bool]:
        """What a sentence says, with what that implies; whether it is so no longer."""
        for negation in self._negations:
            statement = negation.of(text)
            if statement is None:
                continue
            if self._inner.search(statement):
                break  # of a part, or denied twice: it contradicts no other sentence for certain
            statement, ended = self._ended.subn("", statement)
            has_ended = negation.has_ended or ended > 0
            return (Claim(self._bare(statement), True),), has_ended
        said = _replaced(text, self._degrees)[0]
        claims = [Claim(self._bare(said), False)]
        for contrary in self._contraries:
            statement = contrary.of(said)
            if statement is not None and not self._inner.search(statement):
                claims.append(Claim(self._bare(statement), True))
        implied, count = _replaced(said, self._implied)
        if count:
            claims.append(Claim(self._bare(implied), False))
        return tuple(claims), False

    def _bare(self, text: str) -> str:
        return normalized(_replaced(text, self._emphasis)[0])

    def slot(self, sentence: str, core: str) -> str | None:
        """The subject and the slot that a sentence fills."""
        core = _replaced(_replaced(core, self._degrees)[0], self._emphasis)[0].strip()
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
            if slot.unless is not None and slot.unless.search(name or found["value"]):
                continue
            return f"{found['of'] or SELF}/{slot.name}"
        return None


@cache
def _words() -> _Words:
    return _Words(_stored("facts.toml"), _stored("values.toml"))


def _stored(name: str) -> dict[str, Any]:
    data = files("amberdb.memory") / name
    return tomllib.loads(data.read_text(encoding="utf-8"))


def _negation(stored: Mapping[str, Any], whom: Mapping[str, str]) -> _Negation:
    return _Negation(
        re.compile(_filled(stored["pattern"], whom)),
        stored["statement"],
        stored.get("has_ended", False),
        stored.get("is_third_person", False),
    )


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
    """The pattern with the subjects and values in braces."""
    for name, subject in subjects.items():
        pattern = pattern.replace(f"{{{name}}}", subject)
    return pattern


def _names(sentence: str) -> frozenset[str]:
    if sentence.upper() == sentence:  # shouted, or of a script without cases
        return frozenset()
    words = (word.strip(_EDGES) for word in sentence.replace("\u2019", "'").split()[1:])
    return frozenset(
        word for word in words if word.lower() != word and not word.startswith("I'")
    ) - {"I"}


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
