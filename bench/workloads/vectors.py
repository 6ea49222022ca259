"""Vectors distributed like embeddings, and documents that have them.

Invariants:
- Vector number i of `dim` numbers is the same in every run and for every engine.
- A vector is one of CENTRES points of a space of LATENT dimensions, plus noise in that space,
  projected into `dim` dimensions, plus a little noise there: clustered, and of lower intrinsic
  dimension. Questions are drawn in the same way, and none equals a stored vector.
"""

from collections.abc import Iterator
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.workloads import texts
from bench.workloads.events import BATCH_DOCUMENTS, SEED, Document, in_batches

Vectors: TypeAlias = NDArray[np.float32]

CENTRES = 300
LATENT = 48
_NOISE = 0.3
_QUESTIONS_BLOCK = -1


@cache
def _space(dim: int) -> tuple[Vectors, Vectors]:
    """The centres, float32[CENTRES, LATENT], and the projection, float32[LATENT, dim]."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((CENTRES, LATENT), np.float32)
    into = rng.standard_normal((LATENT, dim), np.float32)
    into *= LATENT**-0.5
    return centres, into


@cache
def _block(number: int, dim: int) -> Vectors:
    centres, into = _space(dim)
    rng = np.random.default_rng([SEED, number & 0xFFFFFFFF])
    count = BATCH_DOCUMENTS
    latent = centres[rng.integers(0, CENTRES, count)]
    latent += rng.standard_normal((count, LATENT), np.float32)
    noise = rng.standard_normal((count, dim), np.float32)
    noise *= _NOISE
    vectors: Vectors = latent @ into
    vectors += noise
    vectors.flags.writeable = False
    return vectors


def vectors(start: int, count: int, dim: int) -> Vectors:
    """float32[count, dim]: the vectors from number `start`, a multiple of BATCH_DOCUMENTS."""
    assert start % BATCH_DOCUMENTS == 0
    blocks = range(start // BATCH_DOCUMENTS, -(-(start + count) // BATCH_DOCUMENTS))
    return np.concatenate([_block(number, dim) for number in blocks])[:count]


def documents(start: int, count: int, dim: int) -> Iterator[Document]:
    """The documents of bench/workloads/texts.py, each with a vector in `embedding`."""
    for document, vector in zip(
        texts.documents(start, count), vectors(start, count, dim), strict=True
    ):
        yield {**document, "embedding": vector}


def batches(start: int, count: int, dim: int) -> Iterator[list[Document]]:
    """documents() in lists of BATCH_DOCUMENTS."""
    return in_batches(documents(start, count, dim))


def questions(count: int, dim: int) -> list[Vectors]:
    """`count` vectors of float32[dim], at most BATCH_DOCUMENTS."""
    return list(_block(_QUESTIONS_BLOCK, dim)[:count])


def nearest(
    questions: list[Vectors], stored: Vectors, limit: int, among: NDArray[np.intp] | None = None
) -> list[list[int]]:
    """The true answers: row numbers by cosine, nearest first, of all or of `among`."""
    numbers = np.arange(len(stored)) if among is None else among
    rows = stored[numbers]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found: list[list[int]] = []
    for question in questions:
        best = np.argsort(-(rows @ question), kind="stable")[:limit]
        found.append(numbers[best].tolist())
    return found
