"""The language libraries: imported when first used, each with the version that identities name.

Invariants:
- Each loader gives a pure, thread-safe function and the library's version.
- A library that is not installed is a CollectionError that says what to install.
- None of them has types: imported by name, so that checkers look for none.
- No loader writes a file or reads a cache: jieba would keep one in the shared temporary folder.
"""

import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeAlias

from amberdb._errors import CollectionError

Fold: TypeAlias = Callable[[str], str]
Segment: TypeAlias = Callable[[str], list[str]]


def stemmer(language: str) -> tuple[Fold, str]:
    """Snowball's stemmer: word -> stem. Raises CollectionError for a language it does not know."""
    snowball: Any = import_module("Stemmer")
    if language not in snowball.algorithms():
        raise CollectionError(
            f"no stemmer for the language {language!r}: take None or one of "
            + ", ".join(sorted(snowball.algorithms()))
        )
    made: Any = snowball.Stemmer(language, 0)  # 0: the analyzer has a cache of its own
    stem: Fold = made.stemWord
    lock = threading.Lock()  # a stemmer works in a buffer of its own

    def locked(word: str) -> str:
        with lock:
            return stem(word)

    return locked, version("PyStemmer")


def segmenter(name: str) -> tuple[Segment, str]:
    """jieba's words of a run of Han signs, short ones inside long ones included."""
    if name != "jieba":
        raise CollectionError(f"the segmenter is 'jieba' or None, not {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba asks for pkg_resources, which warns of its end
        try:
            jieba: Any = import_module("jieba")
        except ImportError as error:
            raise _missing("segmenter='jieba'", "jieba") from error
    made: Any = jieba.Tokenizer()
    # What initialize() does, without the cache file that it loads from the temporary folder.
    made.FREQ, made.total = made.gen_pfdict(made.get_dict_file())
    made.initialized = True
    return made.lcut_for_search, version("jieba")


def simplifier() -> tuple[Fold, str]:
    """OpenCC: traditional characters to simplified ones."""
    try:
        opencc: Any = import_module("opencc")
    except ImportError as error:
        raise _missing("fold_traditional=True", "OpenCC") from error
    made: Any = opencc.OpenCC("t2s")
    return made.convert, version("OpenCC")


def _missing(option: str, library: str) -> CollectionError:
    return CollectionError(f"{option} needs {library}: pip install 'amberdb[zh]'")
