"""Text documents with the word frequencies of a language, and questions about them.

Invariants:
- Document number i is the same in every run and for every engine.
- The vocabulary is made up, so no word is a stop word. The probability of the word of rank r is
  1 / r of the first one's (Zipf). Some words are others with a suffix.
- A fifth of the documents also has a Chinese sentence, with the name of a person: of NAMES, the
  one of rank r is drawn with probability 1 / r of the first one's, so most names are rare.
"""

import random
from collections.abc import Iterator
from functools import cache

import numpy as np

from bench.workloads.events import BATCH_DOCUMENTS, EPOCH, SEED, STEP, Document, document_id

WORDS = 50_000
COMMON = range(300)
"""Ranks of the words of common questions."""
RARE = range(10_000, WORDS)
NAMES = 2_000
RARE_NAMES = range(50, 300)
"""Each in about as many of 100,000 documents as a word of RARE."""
LARGE_ENTITIES = 10
SMALL_ENTITIES = 500
_LENGTHS = (30, 60)
_WORD_LETTERS_MIN = 5
_CHINESE_SHARE = 0.2
_HAN = (0x4E00, 0x9FA5)

_ONSETS = (
    *("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v"),
    *("br", "dr", "gr", "kr", "pl", "st", "tr"),
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS = ("", "", "", "l", "m", "n", "r", "s", "t", "nd", "st")
_ENDINGS = ("s", "ed", "ing", "er", "ness")
_ENDED_SHARE = 0.25
_SUBJECTS = ("我们", "她", "项目组", "医生", "老师", "邻居", "客户", "孩子")
_TIMES = ("昨天", "下午三点", "周末", "下个月", "会议之后", "早上", "月底", "最近")
_VERBS = ("讨论了", "推迟了", "喜欢", "整理了", "忘记了", "打算参加", "建议修改", "完成了")
_OBJECTS = (
    "新的合同",
    "上海的出差",
    "体检报告",
    "向量检索",
    "花园里的树",
    "生日聚会",
    "预算",
    "旧照片",
)


@cache
def vocabulary() -> list[str]:
    """The words by rank; frequent ones are short, as in a language."""
    rng = random.Random(f"{SEED}:words")
    words: dict[str, None] = {}
    known: list[str] = []
    while len(known) < WORDS:
        if len(known) > COMMON.stop and rng.random() < _ENDED_SHARE:
            word = rng.choice(known) + rng.choice(_ENDINGS)
        else:
            syllables = 2 + (len(known) > 2_000) + (len(known) > 20_000)
            parts = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
            word = "".join(parts) + rng.choice(_CODAS)
        if len(word) >= _WORD_LETTERS_MIN and word not in words:
            words[word] = None
            known.append(word)
    return known


def entity_of(number: int) -> str:
    """Half of the documents belong to ten large entities, the other half to 500 small ones."""
    half, is_small = divmod(number, 2)
    return f"small-{half % SMALL_ENTITIES}" if is_small else f"large-{half % LARGE_ENTITIES}"


def documents(start: int, count: int) -> Iterator[Document]:
    """Documents number `start`, a multiple of BATCH_DOCUMENTS, to `start + count`."""
    assert start % BATCH_DOCUMENTS == 0
    words = vocabulary()
    shares = np.cumsum(1 / np.arange(1, WORDS + 1))
    shares /= shares[-1]
    for block in range(start, start + count, BATCH_DOCUMENTS):
        rng = random.Random(f"{SEED}:text:{block}")
        for number in range(block, min(block + BATCH_DOCUMENTS, start + count)):
            draws = [rng.random() for _ in range(rng.randint(*_LENGTHS))]
            ranks: list[int] = np.searchsorted(shares, draws).tolist()
            content = " ".join([words[rank] for rank in ranks])
            if rng.random() < _CHINESE_SHARE:
                content = f"{content}. {_sentence(rng)}"
            yield {
                "id": document_id(number),
                "entity_id": entity_of(number),
                "content": content,
                "created_at": EPOCH + number * STEP,
            }


def questions(ranks: range, count: int) -> list[str]:
    """`count` questions of two or three different words whose ranks are in `ranks`."""
    rng = random.Random(f"{SEED}:{ranks}")
    words = vocabulary()
    return [
        " ".join(words[rank] for rank in rng.sample(ranks, rng.randint(2, 3))) for _ in range(count)
    ]


def names(ranks: range, count: int) -> list[str]:
    """`count` names of two Han characters whose ranks are in `ranks`."""
    rng = random.Random(f"{SEED}:names:{ranks}")
    return [_names()[rng.choice(ranks)] for _ in range(count)]


def sentences(count: int) -> list[str]:
    """`count` Chinese sentences."""
    rng = random.Random(f"{SEED}:sentences")
    return [_sentence(rng) for _ in range(count)]


def _sentence(rng: random.Random) -> str:
    parts = (_TIMES, _SUBJECTS, _VERBS, _OBJECTS)
    told = "".join(rng.choice(part) for part in parts)
    return f"{told}，{_names()[int(NAMES ** rng.random()) - 1]}。"


@cache
def _names() -> list[str]:
    """By rank; pairs of Han characters, none of which is in the sentences by chance often."""
    rng = random.Random(f"{SEED}:names")
    found: dict[str, None] = {}
    while len(found) < NAMES:
        found[chr(rng.randrange(*_HAN)) + chr(rng.randrange(*_HAN))] = None
    return list(found)
