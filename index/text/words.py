"""The analysis of one word: its parts, its wholes, their stems.

    getUserName        get, user, name; getusername
    user_id, e-mail    user, id; userid              e, mail; email
    5kg, 100m2         5, kg; 5kg                    100, m2; 100m2
    GPT4, iPhone15     gpt, 4; gpt4                  phone, iphone, 15; iphone15
    v2.10              v, 2, 10; v2, 2.10, v2.10     a joint between digits stays in a whole
    C++, A+            c++; a+                       a letter with a sign is another word
    .NET, Disney+      .net; net is a variant        disney; disney+ is a variant
    caf\u00e9               has the variants caf\u00e9 and cafe

A variant is a form of a word that counts half: texts with the very word of a query come first, and
those with another form of it are found.

Invariants:
- Thread-safe, and a pure function of word, stemmer and stop words.
- A term that is not of a stop word does not begin with STOP.
- What a query asks for a word is among the terms of the word.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias, final
from unicodedata import normalize

from amberdb.index.text.folding import folded
from amberdb.index.text.language_libraries import Fold
from amberdb.index.text.pieces import HAS_LINK, PARTS

TERM_BYTES_MAX: Final = 100
_DIGEST_BYTES: Final = 8
_NAME_CHARACTERS_MAX: Final = 64
"""A longer part is no name in camelCase."""

_HUMPS: Final = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+").findall
_NUMBERED: Final = re.compile(r"([0-9]*)([^0-9]+)([0-9]*)").fullmatch
_VERSION: Final = re.compile(r"[vV][0-9]+\.[0-9]").match

STOP: Final = "="
"""Begins the terms of stop words, which are apart from those of words with the same stem."""

# Endings that may follow a prefix in a word whose stem is shorter than the prefix.
_ENDINGS: Final = {
    "english": (
        *("s", "es", "d", "ed", "g", "ng", "ing", "y", "ly", "ty", "ity", "ies", "n", "on", "ion"),
        *("tion", "ation", "l", "al", "ally", "e", "er", "ers", "or", "ors", "nt", "ent", "ment"),
        *("ments", "t", "ss", "ess", "ness", "able", "ible", "ful"),
    )
}


class Terms(NamedTuple):
    """The terms of a text, with repeats, in order."""

    words: list[str]
    variants: list[str]
    """Of words that have several forms."""
    stop_words: list[str]


class _Form(NamedTuple):
    """One form of a word, in its own case."""

    text: str
    is_part: bool = False
    """It stands for its part of the word in phrases."""
    is_whole: bool = False
    """It is made of several words, and so no stop word."""
    is_variant: bool = False
    is_asked: bool = True
    """A query with the word asks for it too."""


_Forms: TypeAlias = Iterator[_Form]


@final
class Words:
    """The analysis of words in one language."""

    __slots__ = ("_endings", "_is_apart", "_stem", "_stops")

    def __init__(self, language: str | None, stem: Fold | None, stops: frozenset[str]) -> None:
        self._stem = stem
        self._stops = stops | frozenset(map(folded, stops))
        # English has don't and o'brien; elsewhere an apostrophe separates two words: l'ami.
        self._is_apart = language not in (None, "english")
        self._endings = ("", *_ENDINGS.get(language or "", ()))

    def terms(self, word: str, *, asked: bool = False) -> Terms:
        """The terms of a word in a document, or those that are `asked` for it in a query."""
        if word.isascii() and word.isalpha() and (word[1:].islower() or word.isupper()):
            return self._simple_terms(word.lower())
        terms = Terms([], [], [])
        for form in self._forms(word):
            if asked and not form.is_asked:
                continue
            text = casefolded(form.text)
            bare = folded(text)
            if bare in self._stops and not form.is_whole:
                terms.stop_words.append(_stop_word(bare))
                if text in self._stops:
                    continue
            plain = self._stemmed(bare)
            exact = plain if text.isascii() else self._stemmed(text)
            if exact != plain:
                terms.variants.extend((exact, plain))
            else:
                (terms.variants if form.is_variant else terms.words).append(plain)
        return terms

    def canonical(self, word: str) -> list[str]:
        """The parts of a word in the form in which phrases are compared: each is a term of the
        word, and no variant of another."""
        bare = [folded(casefolded(form.text)) for form in self._forms(word) if form.is_part]
        return [_stop_word(part) if part in self._stops else self._stemmed(part) for part in bare]

    def prefix(self, word: str) -> tuple[str, tuple[str, ...]]:
        """The beginning of the terms to look for, and whole terms in addition, since a stem may be
        shorter than the prefix."""
        *_, form = self._forms(word)
        whole = folded(casefolded(form.text)).replace("'", "")
        stems = [self._stemmed(whole + ending) for ending in self._endings]
        return whole, tuple(dict.fromkeys(stem for stem in stems if not stem.startswith(whole)))

    def _simple_terms(self, word: str) -> Terms:
        if word in self._stops:
            return Terms([], [], [_stop_word(word)])
        return Terms([self._stemmed(word)], [], [])

    def _stemmed(self, part: str) -> str:
        part = part.removesuffix("'s").replace("'", "")
        return bounded((self._stem(part) if self._stem else part) or part)

    def _forms(self, word: str) -> _Forms:
        """The forms of a word; the whole word is the last."""
        word = word.replace("\u2019", "'")
        for alone in word.split("'") if self._is_apart else (word,):
            yield from _forms(alone)


def _forms(word: str) -> _Forms:
    groups: list[list[re.Match[str]]] = []
    end = 0
    for match in PARTS.finditer(word):
        if not groups or HAS_LINK(word, end, match.start()):
            groups.append([])
        groups[-1].append(match)
        end = match.end()
    for group in groups:
        for match in group:
            if _VERSION(word, match.start()):
                yield _Form("v", is_part=True)
                yield _Form(match[0][1:], is_part=True)
                yield _Form(match[0])
            else:
                yield from _part(*match.groups(""))
        if len(group) > 1:
            yield from _wholes(group)
    if len(groups) > 1:
        yield from _wholes([match for group in groups for match in group])


def _wholes(parts: list[re.Match[str]]) -> _Forms:
    """The whole of several parts: without their joints, except between digits."""
    whole = [parts[0][0]]
    for before, part in pairwise(parts):
        is_number = before[0][-1].isdigit() and part[0][0].isdigit()
        joint = part.string[before.end() : part.start()] if is_number else ""
        whole += [joint, part[0]]
    text = "".join(whole)
    if _VERSION(text):
        yield _Form(text[1:], is_whole=True)
    yield _Form(text, is_whole=True)


def _part(dot: str, part: str, sign: str) -> _Forms:
    """One part: with its dot or its sign, and without."""
    if sign and len(part) == 1 and not part.isdigit():
        yield _Form(part + sign, is_part=True)
        return
    for form in _inside(part):
        yield form._replace(is_variant=True) if dot else form
    if dot or sign:
        yield _Form(dot + part + sign, is_whole=True, is_variant=not dot)


def _inside(part: str) -> _Forms:
    """A part and the words in it: get User Name, 100 m2, GPT 4."""
    if (part.isalpha() and not _is_camel(part)) or len(part) > _NAME_CHARACTERS_MAX or "'" in part:
        yield _Form(part, is_part=True)
        return
    numbered = _NUMBERED(part)
    if numbered is None or part.isalpha():  # no number at the ends
        names = _HUMPS(part) if _is_camel(part) else [part]
        yield from (_Form(name, is_part=True) for name in names)
        if len(names) > 1:
            yield _Form(part)
        return
    before, letters, after = numbered.groups()
    if len(letters) == 1:
        letters, after = letters + after, ""
    if before or after:
        # A query for 5 kg may be written 5kg. One for room12 is for no other room.
        yield from (_Form(number, is_asked=bool(before)) for number in (before, after) if number)
        names = _HUMPS(letters) if _is_camel(letters) else []
        yield from map(_Form, names)
        yield _Form(letters, is_asked=bool(before or names))
    yield _Form(part, is_part=True)


def _is_camel(part: str) -> bool:
    """Whether a part in ASCII has capitals inside, and other letters."""
    return part.isascii() and not (part.isupper() or part[1:].islower() or part[1:].isdigit())


def casefolded(text: str) -> str:
    """Casefolded, in NFKC. The capital dotted I is a capital i, and the musical sharp is a #."""
    if text.isascii():
        return text.lower()
    return normalize("NFKC", text.casefold().replace("i\u0307", "i").replace("\u266f", "#"))


def _stop_word(word: str) -> str:
    """The term of a stop word."""
    return STOP + word.replace("'", "")


def bounded(term: str) -> str:
    """The term, cut to TERM_BYTES_MAX bytes."""
    if len(term) * 4 <= TERM_BYTES_MAX:
        return term
    data = term.encode()
    if len(data) <= TERM_BYTES_MAX:
        return term
    digest = blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
    return data[: TERM_BYTES_MAX - len(digest)].decode(errors="ignore") + digest
