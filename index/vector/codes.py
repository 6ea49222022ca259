"""Codes: one bit per dimension of each vector; they exclude most vectors from exact scoring.

A vector is rotated by a fixed random rotation, and its code is the signs of the result. Two codes
differ in a share of their bits that is about angle / pi, whatever the vectors are: only the
rotation is random (random hyperplane hashing). Where that leaves many vectors, their codes are
compared with a query of four bits per dimension, which halves the error (RaBitQ).

    bounds()            of all vectors, above their scores with near certainty
    bounds_of()         of some vectors, the same
    closer_bounds_of()  of some vectors, nearer to their scores

A vector whose bound is below a score that the best ones are known to reach need not be scored.

Invariants:
- A bound is below the exact score with a probability of less than 1 in 100,000: that of SIGMAS
  standard deviations, over the draw of the rotation. It is drawn once, so vectors that share most
  of their direction share their luck: of these, 1 in 7,000 bounds was below, none of a near row
  (docs/decisions).
- Append-only: the arrays of a CodesView never move and never change.
- A code depends on its vector and the dimension alone, in every process: files store codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.vector.coercion import Metric
from amberdb.index.vector.distance import Places, Scores, Vectors

Words: TypeAlias = NDArray[np.uint64]

SIGMAS: Final = 4.5
"""The error that a bound allows for, in standard deviations."""
BLOCK_ROWS: Final = 16_384
"""Rows whose codes lie together: one word of each in a row, so that a pass stays in the cache."""
_NARROWER: Final = 0.4
"""The count of differing bits deviates less than that of as many coins, since the hyperplanes of a
rotation are orthogonal: not for small angles, and by a fifth for orthogonal vectors. Measured were
23 percent."""
_HALVINGS: Final = 40
_WORD: Final = 64
_ROUNDS: Final = 2
"""Rotations of 64 dimensions each; between them every group of 64 is spread over all groups. One
round was not enough for vectors in which one dimension dominates, and a rotation of all dimensions
at once would take dim / 128 times as long."""
_PLANES: Final = 3
"""Bits of a dimension of the query besides its sign."""
_CODED_ROWS: Final = 2048
"""Rows coded at once."""
_ROUNDED_BITS: Final = 8
_CLOSE: Final = 1e-3
_ROUNDING: Final = 1e-5
"""The rounding of scores, relative to the lengths of the vectors."""


def words_of(dim: int) -> int:
    """The number of words of a code."""
    return -(-dim // _WORD)


@cache
def _rotations() -> list[Vectors]:
    """float32[64, 64] for each round."""
    rng = np.random.Generator(np.random.PCG64(64))
    drawn = [rng.standard_normal((_WORD, _WORD)) for _ in range(_ROUNDS)]
    return [np.linalg.qr(each)[0].astype(np.float32) for each in drawn]


def _rotated(vectors: Vectors) -> Vectors:
    """float32[n, 64 words]: the vectors, with zeros up to whole words, rotated."""
    count, dim = vectors.shape
    words = words_of(dim)
    found = np.zeros((count, words, _WORD), np.float32)
    found.reshape(count, -1)[:, :dim] = vectors
    for number, rotation in enumerate(_rotations()):
        if number:
            found = found.swapaxes(1, 2).reshape(count, words, _WORD)
        # One small product for each vector: its sums do not depend on the vectors beside it, and
        # BLAS starts no threads.
        found = found @ rotation
    return found.reshape(count, -1)


def _packed(bits: NDArray[np.bool_]) -> Words:
    """uint64[n, words]"""
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8")


@lru_cache(maxsize=16)
def _cosine_bounds(dim: int) -> Scores:
    """float32[dim + 1]: by the count of differing bits, the greatest cosine that is likely: that of
    the least share from which a count so high is SIGMAS away, by Chernoff's bound, which holds for
    small shares too."""
    counts = np.arange(dim + 1) / dim
    low, high = np.zeros(dim + 1), counts.copy()
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        sigmas = SIGMAS * (1 - _NARROWER * share)
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = np.nan_to_num((1 - counts) * np.log((1 - counts) / (1 - share)))
            differ = np.nan_to_num(counts * np.log(counts / share))
        is_far = dim * (alike + differ) > sigmas**2 / 2
        low, high = np.where(is_far, share, low), np.where(is_far, high, share)
    return (np.cos(np.pi * low) + _ROUNDING).astype(np.float32)


@final
class CodedQuery:
    """A prepared query: its length, and the signs of its direction, rotated."""

    __slots__ = ("_turned", "length", "signs")

    def __init__(self, vector: Vectors) -> None:
        lengths, directions = _directions(vector[None])
        self.length = np.float32(lengths[0])
        self._turned = _rotated(directions)[0]
        self.signs = _packed(self._turned > 0)

    def sizes(self) -> "_Sizes":
        return _Sizes(np.abs(self._turned))


@final
class _Sizes:
    """The sizes of the dimensions of a query, each rounded to an odd multiple of `step`."""

    __slots__ = ("error", "planes", "step", "total")

    def __init__(self, sizes: Vectors) -> None:
        levels = 1 << _PLANES
        self.step = float(sizes.max()) / (2 * levels) or 1.0
        level = np.minimum(sizes / (2 * self.step), levels - 1).astype(np.uint8)
        rounded = (2.0 * level + 1.0) * self.step
        self.error = float(np.linalg.norm(sizes - rounded))
        """The length of what was rounded off."""
        self.total = float(rounded.sum())
        bits = level >> np.arange(_PLANES, dtype=np.uint8)[:, None] & 1
        self.planes = _packed(bits.view(np.bool_))
        """uint64[_PLANES, words]: the bits of (multiple - 1) / 2."""


@final
@dataclass(frozen=True, slots=True)
class Block:
    """The codes of BLOCK_ROWS vectors, or room for them."""

    words: Words
    """uint64[words, rows]"""
    scales: Scores
    """float32[rows]: the cosine of a vector and a query is about this, times the product of the
    signs of the one and the rotated other."""
    lengths: Scores
    """float32[rows]: of the vectors. Empty for the cosine: each is 1."""

    def at(self, numbers: Places) -> "Block":
        """A copy of the codes with these numbers in the block."""
        lengths = self.lengths[numbers] if len(self.lengths) else self.lengths
        return Block(self.words[:, numbers], self.scales[numbers], lengths)


@final
class CodesView:
    """The codes of the first `count` vectors of a matrix. Immutable."""

    __slots__ = ("_dim", "_metric", "blocks", "count")

    def __init__(self, count: int, blocks: tuple[Block, ...], dim: int, metric: Metric) -> None:
        self.count = count
        self.blocks = blocks
        self._dim = words_of(dim) * _WORD
        self._metric: Metric = metric

    def pieces(self) -> list[NDArray[Any]]:
        """All codes as Codes.of() reads them: block by block the words, the scales and the
        lengths."""
        found: list[NDArray[Any]] = []
        for _, block in self._sized():
            found += [np.ascontiguousarray(block.words), block.scales, block.lengths]
        return found

    def first_wrong(self, start: int, vectors: Vectors) -> int | None:
        """The first place from `start` on whose code is not that of its vector, prepared
        float32[n, dim]. A few bits may differ: those that another processor rounded."""
        if start >= self.count:
            return None
        vectors = vectors[: self.count - start]
        places = np.arange(start, start + len(vectors))
        own = Codes(vectors.shape[1], self._metric)
        own.add(vectors)
        made, stored = own.view().at(places - start), self.at(places)
        differing = np.bitwise_count(made.words ^ stored.words).sum(axis=0, dtype=np.intp)
        is_wrong = differing > _ROUNDED_BITS
        is_wrong |= ~np.isclose(made.scales, stored.scales, rtol=_CLOSE)
        if len(made.lengths):
            is_wrong |= ~np.isclose(made.lengths, stored.lengths, rtol=_CLOSE)
        wrong = np.flatnonzero(is_wrong)
        return int(places[wrong[0]]) if len(wrong) else None

    def bounds(self, query: CodedQuery, start: int = 0) -> Scores:
        """float32[count - start]: a bound of the score of each vector from place `start` on."""
        found = np.empty(max(self.count - start, 0), np.float32)
        table = _cosine_bounds(self._dim)
        count = min(BLOCK_ROWS, len(found))
        room = np.empty(count, np.uint64), np.empty(count, np.uint8), np.empty(count, np.uint16)
        for first, block in self._sized(start):
            size = block.words.shape[1]
            differing, ones, sums = (each[:size] for each in room)
            sums[:] = 0
            for word, sign in zip(block.words, query.signs, strict=True):
                np.bitwise_xor(word, sign, out=differing)
                np.bitwise_count(differing, out=ones)
                sums += ones
            cosines = found[first - start : first - start + size]
            np.take(table, sums, out=cosines, mode="clip")  # "raise" would copy through a buffer
            if self._metric != "cosine":
                cosines[:] = self._scores(cosines, block.lengths, query)
        return found

    def bounds_of(self, query: CodedQuery, block: Block) -> Scores:
        """float32[rows]: bounds() of the vectors whose codes at() has copied."""
        ones = np.bitwise_count(block.words ^ query.signs[:, None])
        cosines = _cosine_bounds(self._dim)[ones.sum(axis=0, dtype=np.intp)]
        return self._scores(cosines, block.lengths, query)

    def closer_bounds_of(self, query: CodedQuery, block: Block, least: float) -> Scores:
        """float32[rows]: bounds nearer to the scores of the vectors whose codes at() has copied;
        for vectors that score `least` or more. That of another one may be too small."""
        sizes = query.sizes()
        differing = block.words ^ query.signs[:, None]
        sums = np.bitwise_count(differing).sum(axis=0, dtype=np.float32)
        for plane, bits in enumerate(sizes.planes):
            ones = np.bitwise_count(differing & bits[:, None])
            sums += np.float32(2 << plane) * ones.sum(axis=0, dtype=np.float32)
        beside = 1.0
        if self._metric == "cosine":  # the square of the query's part beside such a vector
            beside -= min(max(least, 0.0), 1.0) ** 2
        squares = block.scales * block.scales
        variances = np.maximum(squares - np.float32(1 / self._dim), 0) * np.float32(beside)
        variances += squares * np.float32(sizes.error**2)
        cosines = np.float32(sizes.total) - np.float32(2 * sizes.step) * sums
        cosines *= block.scales
        cosines += np.float32(SIGMAS) * np.sqrt(variances) + np.float32(_ROUNDING)
        return self._scores(cosines, block.lengths, query)

    def _scores(self, cosines: Scores, lengths: Scores, query: CodedQuery) -> Scores:
        """The scores that bounds of cosines stand for."""
        if self._metric == "cosine":
            return cosines
        length = query.length
        products = cosines * lengths * length
        if self._metric == "ip":
            return products
        squares = (lengths * lengths + length * length) * np.float32(1 - _ROUNDING)
        return np.negative(np.sqrt(np.maximum(squares - 2 * products, 0)))

    def _sized(self, start: int = 0) -> Iterator[tuple[int, Block]]:
        """The blocks from a place on without their room, each with its first place."""
        for first, block in zip(range(0, self.count, BLOCK_ROWS), self.blocks, strict=False):
            low, high = max(start - first, 0), min(self.count - first, BLOCK_ROWS)
            if low >= high:
                continue
            if high - low < BLOCK_ROWS:
                part = slice(low, high)
                block = Block(block.words[:, part], block.scales[part], block.lengths[part])
            yield first + low, block

    def at(self, places: Places) -> Block:
        """A copy of the codes of the vectors at these places, which ascend."""
        count = len(places)
        words = np.empty((self._dim // _WORD, count), np.uint64)
        scales = np.empty(count, np.float32)
        lengths = np.empty(0 if self._metric == "cosine" else count, np.float32)
        low = 0
        ends = np.arange(1, len(self.blocks) + 1) * BLOCK_ROWS
        for block, end, high in zip(
            self.blocks, ends.tolist(), places.searchsorted(ends).tolist(), strict=True
        ):
            if high > low:
                inside = places[low:high] - (end - BLOCK_ROWS)
                words[:, low:high] = block.words[:, inside]
                scales[low:high] = block.scales[inside]
                if len(lengths):
                    lengths[low:high] = block.lengths[inside]
            low = high
        return Block(words, scales, lengths)


@final
class Codes:
    """Grows by add(); view() is a view of the codes so far."""

    def __init__(self, dim: int, metric: Metric) -> None:
        self._dim = dim
        self._metric: Metric = metric
        self._blocks: list[Block] = []
        self._count = 0
        self._view = self._made()

    @classmethod
    def of(cls, data: memoryview, dim: int, metric: Metric) -> "Codes":
        """The codes in the bytes of pieces(). Full blocks are not copied. Raises ValueError."""
        codes = cls(dim, metric)
        number_bytes = 4 if metric == "cosine" else 8
        row_bytes = 8 * words_of(dim) + number_bytes
        if len(data) % row_bytes:
            raise ValueError(f"codes of {row_bytes} bytes in {len(data)}")
        left = len(data) // row_bytes
        codes._count = left
        while left:
            size = min(left, BLOCK_ROWS)
            words_bytes = size * 8 * words_of(dim)
            words = np.frombuffer(data[:words_bytes], np.uint64).reshape(-1, size)
            numbers = np.frombuffer(data[words_bytes : size * row_bytes], np.float32)
            block = Block(words, numbers[:size], numbers[size:])
            if size < BLOCK_ROWS:
                full = codes._new_block()
                full.words[:, :size] = block.words
                full.scales[:size] = block.scales
                full.lengths[: len(block.lengths)] = block.lengths
                block = full
            codes._blocks.append(block)
            data = data[size * row_bytes :]
            left -= size
        codes._view = codes._made()
        return codes

    def view(self) -> CodesView:
        return self._view

    @property
    def size_bytes(self) -> int:
        numbers = 4 if self._metric == "cosine" else 8
        return self._count * (8 * words_of(self._dim) + numbers)

    def add(self, vectors: Vectors) -> None:
        """Codes prepared float32[n, dim], the next vectors of the matrix. One thread at a time."""
        for start in range(0, len(vectors), _CODED_ROWS):
            self._add(vectors[start : start + _CODED_ROWS])
        self._view = self._made()

    def _made(self) -> CodesView:
        return CodesView(self._count, tuple(self._blocks), self._dim, self._metric)

    def _add(self, vectors: Vectors) -> None:
        if self._metric == "cosine":
            lengths, directions = np.empty(0, np.float32), vectors
        else:
            lengths, directions = _directions(vectors)
        turned = _rotated(directions)
        words = _packed(turned > 0).T
        sums = np.abs(turned).sum(axis=1)
        scales = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
        done = 0
        while done < len(vectors):
            at = self._count % BLOCK_ROWS
            if not at:
                self._blocks.append(self._new_block())
            end = min(done + BLOCK_ROWS - at, len(vectors))
            block, to = self._blocks[-1], slice(at, at + end - done)
            block.words[:, to] = words[:, done:end]
            block.scales[to] = scales[done:end]
            if len(lengths):
                block.lengths[to] = lengths[done:end]
            self._count += end - done
            done = end

    def _new_block(self) -> Block:
        rows = 0 if self._metric == "cosine" else BLOCK_ROWS
        return Block(
            np.empty((words_of(self._dim), BLOCK_ROWS), np.uint64),
            np.empty(BLOCK_ROWS, np.float32),
            np.empty(rows, np.float32),
        )


def _directions(vectors: Vectors) -> tuple[Scores, Vectors]:
    """The lengths of vectors, and the vectors of length one: zeros for zeros."""
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(wide, wide))
    wide /= np.where(lengths > 0, lengths, 1)[:, None]
    return lengths.astype(np.float32), wide.astype(np.float32)
