"""The language libraries: imported on first use, each with its version for Analyzer.identity.

Invariants:
- Each loader returns a pure, thread-safe function and the version of the library.
- A library that is not installed is a CollectionError that says what to install.
- The libraries have no types: they are imported by name, so type checkers do not look for them.
- No loader writes a file or reads a cache: jieba would put one into the shared temporary folder.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

from amberdb._call_lock import CallLock
from amberdb._errors import CollectionError

Fold: TypeAlias = Callable[[str], str]
Segment: TypeAlias = Callable[[str], list[str]]


def stemmer(language: str) -> tuple[Fold, str]:
    """Snowball's stemmer: word -> stem. Raises CollectionError for a language without one."""
    snowball: Any = import_module("Stemmer")
    if language not in snowball.algorithms():
        raise CollectionError(
            f"no stemmer for the language {language!r}: use None or one of "
            + ", ".join(sorted(snowball.algorithms()))
        )
    made: Any = snowball.Stemmer(language, 0)  # 0: no cache, the analyzer has one
    stem: Fold = made.stemWord
    lock = CallLock()  # a stemmer is not thread-safe

    def locked(word: str) -> str:
        with lock:
            return stem(word)

    return locked, snowball.version()


def segmenter(name: str) -> tuple[Segment, str]:
    """jieba: the words of a run of Han characters, including short words inside long ones."""
    if name != "jieba":
        raise CollectionError(f"segmenter must be 'jieba' or None, not {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba imports pkg_resources, which is deprecated
        try:
            jieba: Any = import_module("jieba")
        except ImportError as error:
            raise _missing("segmenter='jieba'", "jieba") from error
    made: Any = jieba.Tokenizer()
    # As initialize() does, without the cache file in the temporary folder.
    made.FREQ, made.total = made.gen_pfdict(made.get_dict_file())
    made.initialized = True
    return made.lcut_for_search, _version("jieba")


def simplifier() -> tuple[Fold, str]:
    """OpenCC: traditional characters to simplified ones."""
    try:
        opencc: Any = import_module("opencc")
    except ImportError as error:
        raise _missing("fold_traditional=True", "OpenCC") from error
    made: Any = opencc.OpenCC("t2s")
    return made.convert, _version("OpenCC")


def _missing(option: str, library: str) -> CollectionError:
    return CollectionError(f"{option} needs {library}: pip install 'amberdb[zh]'")


def _version(distribution: str) -> str:
    from importlib.metadata import version  # takes longer to import than the analyzer

    return version(distribution)
