"""Text: the declaration of a full-text index over one or several fields.

Invariants:
- A declaration never changes, and from_map(to_map()) equals it. A map with an unknown key was
  written by a newer format and is refused.
- The content of a document depends on these fields and the declaration alone. A document without a
  str in them has no entry. When its strings have no terms, it has an entry of length 0.
- A field stands for all its str leaves: the elements of lists and the values of maps, at any depth.
"""
# What a document holds has no static type, so type(value) and its lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast, final

from amberdb._errors import CollectionError, FormatError
from amberdb._public import public
from amberdb._types import Document
from amberdb.index.declaration import checked_fields, checked_name
from amberdb.index.paths import Path

if TYPE_CHECKING:
    from amberdb.index.text.analyzer import Analyzer

WEIGHT_MAX: Final = 64
UNIT: Final = 64
"""Term frequencies and lengths are whole numbers of 1/UNIT: sums of them are exact."""
FREQUENCY_MAX: Final = 0xFFFF
"""In units. Higher frequencies are stored as this one."""

Occurrences: TypeAlias = list[tuple[int, int, list[str]]]
"""Terms, with repeats; before them the units that one occurrence counts in the frequency of its
term, and those that it counts in the length of the row."""

_MAP_KEYS: Final = {
    "kind",
    "fields",
    "weights",
    "language",
    "stop_words",
    "segmenter",
    "fold_traditional",
    "name",
}


@public
@final
@dataclass(frozen=True, slots=True, init=False, repr=False)
class Text:
    """Declares a full-text index: `Text("content", "title", weights={"title": 2.0})`.

    weights            field -> weight of its words, 1/64 to 64; 1.0 for the other fields
    language           language of stemming and stop words, in English ("english", "french" ...);
                       None: words are indexed unchanged. Chinese, Japanese and other scripts
                       without spaces need no language.
    stop_words         ask for the language's stop words, if there is a list of them, only when a
                       query has no other word
    segmenter          "jieba": index words instead of pairs of Han characters; needs the extra `zh`
    fold_traditional   index traditional Chinese characters as simplified ones; needs `zh`

    Raises CollectionError.
    """

    kind: ClassVar[str] = "text"

    fields: tuple[str, ...]
    weights: tuple[float, ...]
    """One for each field, in order."""
    language: str | None
    stop_words: bool
    segmenter: str | None
    fold_traditional: bool
    name: str

    def __init__(
        self,
        *fields: str,
        weights: Mapping[str, float] | None = None,
        language: str | None = "english",
        stop_words: bool = True,
        segmenter: str | None = None,
        fold_traditional: bool = False,
        name: str | None = None,
    ) -> None:
        fields = checked_fields(fields)
        for field in fields:
            if field.startswith("-"):
                raise CollectionError(f"a field of a text index takes no direction: {field!r}")
        _check(bool, stop_words=stop_words, fold_traditional=fold_traditional)
        _check((str, type(None)), language=language, segmenter=segmenter)
        if segmenter not in (None, "jieba"):
            raise CollectionError(f"segmenter must be 'jieba' or None, not {segmenter!r}")
        if name is None:
            name = self._default_name(fields)
        name = checked_name(name)
        settings = {
            "fields": fields,
            "weights": _weights(fields, weights),
            "language": language,
            "stop_words": stop_words,
            "segmenter": segmenter,
            "fold_traditional": fold_traditional,
            "name": name,
        }
        for attribute, value in settings.items():
            object.__setattr__(self, attribute, value)

    @classmethod
    def _default_name(cls, fields: Sequence[str]) -> str:
        return f"{cls.kind}:{','.join(fields)}"

    def __repr__(self) -> str:
        parts = [repr(field) for field in self.fields]
        weights = {
            field: weight
            for field, weight in zip(self.fields, self.weights, strict=True)
            if weight != 1.0
        }
        if weights:
            parts.append(f"weights={weights!r}")
        for option, default in (
            ("language", "english"),
            ("stop_words", True),
            ("segmenter", None),
            ("fold_traditional", False),
            ("name", self._default_name(self.fields)),
        ):
            value = getattr(self, option)
            if value != default:
                parts.append(f"{option}={value!r}")
        return f"Text({', '.join(parts)})"

    def to_map(self) -> dict[str, Any]:
        """The map that the catalog stores."""
        return {
            "kind": self.kind,
            "fields": list(self.fields),
            "weights": list(self.weights),
            "language": self.language,
            "stop_words": self.stop_words,
            "segmenter": self.segmenter,
            "fold_traditional": self.fold_traditional,
            "name": self.name,
        }

    @classmethod
    def from_map(cls, stored: Mapping[str, Any]) -> "Text":
        """The declaration that to_map() stored. Raises FormatError."""
        if set(stored) != _MAP_KEYS or stored["kind"] != cls.kind:
            raise FormatError(
                f"a text index with an unknown field (written by a newer version?): {stored!r}"
            )
        options = dict(stored)
        del options["kind"]
        fields, weights = options.pop("fields"), options.pop("weights")
        if type(fields) is not list or type(weights) is not list or len(fields) != len(weights):
            raise FormatError(f"a stored text index has fields of wrong types: {stored!r}")
        try:
            return cls(*fields, weights=dict(zip(fields, weights, strict=True)), **options)
        except (CollectionError, TypeError) as error:
            raise FormatError(f"a stored text index is invalid: {error}") from error


def _check(kinds: type | tuple[type, ...], **options: object) -> None:
    for option, value in options.items():
        if not isinstance(value, kinds):
            wanted = "True or False" if kinds is bool else "a str or None"
            raise CollectionError(f"{option} must be {wanted}, not {value!r}")


def _weights(fields: tuple[str, ...], weights: object) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * len(fields)
    if not isinstance(weights, Mapping):
        raise CollectionError(f"weights must be a map of field to number, not {weights!r}")
    given = cast(Mapping[object, object], weights)
    for field, weight in given.items():
        if field not in fields:
            raise CollectionError(f"weights names {field!r}, which is not a field of the index")
        if type(weight) not in (int, float) or not 1 / UNIT <= cast(float, weight) <= WEIGHT_MAX:
            raise CollectionError(
                f"the weight of {field!r} must be a number from 1/{UNIT} to {WEIGHT_MAX}, "
                f"not {weight!r}"
            )
    return tuple(float(cast(float, given.get(field, 1.0))) for field in fields)


@final
class TextExtractor:
    """One Text declaration, compiled: the engine calls it for each document that it writes.

    Raises CollectionError for an unknown language, or an extra that is not installed.
    """

    __slots__ = ("_fields", "analyzer", "identity", "spec")

    spec: Text
    analyzer: "Analyzer"
    identity: str
    """The analyzer's identity: an index built under another one has to be rebuilt."""

    def __init__(self, spec: Text) -> None:
        from amberdb.index.text.analyzer import Analyzer  # most programs declare no Text index

        self.spec = spec
        self.analyzer = Analyzer.of(
            spec.language, spec.stop_words, spec.segmenter, spec.fold_traditional
        )
        self.identity = self.analyzer.identity
        self._fields = tuple(
            (Path.of(field).find, round(weight * UNIT))
            for field, weight in zip(spec.fields, spec.weights, strict=True)
        )

    def content(self, document: Document) -> tuple[tuple[str, ...], ...] | None:
        """The strings of each field; None when no field has a string, so nothing is indexed."""
        strings = tuple(tuple(_leaves(find(document))) for find, _ in self._fields)
        return strings if any(strings) else None

    def strings(self, document: Document) -> list[str]:
        """All indexed strings: phrases and snippets are searched in them."""
        return list(chain.from_iterable(self.content(document) or ()))

    def occurrences(self, document: Document) -> Occurrences:
        """The terms of a document, field by field. A variant counts half as much as a word, and
        stop words add nothing to the length: whoever asks for other words ranks as without them."""
        analyzed = self.analyzer.terms
        occurrences: Occurrences = []
        for find, units in self._fields:
            value = find(document)
            for string in (value,) if type(value) is str else _leaves(value):
                words, variants, stop_words = analyzed(string)
                occurrences.append((units, units, words))
                if variants:
                    half = units // 2 or 1
                    occurrences.append((half, half, variants))
                if stop_words:
                    occurrences.append((UNIT, 0, stop_words))
        return occurrences


def _leaves(value: object) -> list[str]:
    """All str in lists and maps, in document order."""
    if type(value) is str:
        return [value]
    leaves: list[str] = []
    pending = [value]
    while pending:
        value = pending.pop()
        if type(value) is str:
            leaves.append(value)
        elif type(value) is list:
            pending.extend(reversed(value))
        elif type(value) is dict:
            pending.extend(reversed(value.values()))
    return leaves
