"""Damage of our own files: detected with the file's name, or harmless; never a wrong answer.

Every byte is flipped in a copy, the copy is opened, read and checked as a user would.
"""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import amberdb
from amberdb import AmberError, Ordered, StorageError
from support import slices
from support.page_damage import KINDS, PageDamage
from support.reference import Doc, same
from support.trace import Image
from support.workload import NAME, OPTIONS

DOCUMENTS = 12
EACH = slices.size(12, 1)
"""Damages of each kind inside data.mdb: a slice of tests/crash/damage_pages.py."""
Documents = dict[str, Doc]


def write(root: Path) -> Documents:
    """A database with a checkpoint, and records in the log behind it."""
    docs: Documents = {f"d{n}": {"id": f"d{n}", "n": n, "text": "x" * 30} for n in range(DOCUMENTS)}
    with amberdb.open(root / NAME, **OPTIONS) as db:
        found = db.collection("a", indexes=[Ordered("n")])
        for number, doc in enumerate(docs.values()):
            found.put(doc)
            if number == DOCUMENTS // 2:
                db.checkpoint()
    return docs


def crashed(root: Path) -> Documents:
    """The same, but its process died: every commit had been synced by the next one."""
    docs = write(root)
    with amberdb.open(root / NAME, **OPTIONS) as db:
        for number in range(3):
            doc: Doc = {"id": f"late{number}", "n": number, "text": "y" * 30}
            db.collection("a").put(doc)
            docs[doc["id"]] = doc
        shutil.copytree(root / NAME, root / "copy")
    shutil.rmtree(root / NAME)
    (root / "copy").rename(root / NAME)
    return docs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory)) if memory.is_dir() else tmp_path
    yield root
    shutil.rmtree(root)


def recovered(root: Path, image: Image) -> "tuple[Documents, bool] | AmberError":
    """What a user gets of the image: a typed error that names a file; or all documents, and
    whether check() has found damage in the log, of records that were applied before."""
    image.write_to(root / "image")
    try:
        with amberdb.open(root / "image" / NAME, create=False, **OPTIONS) as db:
            report = db.check()
            for problem in report.problems:
                assert f"the log is damaged at {db.path}" in problem, report
            return {doc["id"]: doc for doc in db.collection("a").documents()}, not report.ok
    except AmberError as error:
        return error
    finally:
        shutil.rmtree(root / "image")


def flipped(image: Image, path: str, offset: int, bits: int) -> Image:
    data = bytearray(image.files[path])
    data[offset] ^= bits
    return Image(image.directories, {**image.files, path: bytes(data)})


def own_files(image: Image) -> list[str]:
    return [path for path in image.files if path.endswith((".wal", "MANIFEST"))]


def mended(root: Path, image: Image, docs: Documents, where: str) -> None:
    """check() finds what opening refuses, and repair() makes a database of it that has lost only
    what the report says."""
    image.write_to(root / "image")
    path = root / "image" / NAME
    try:
        found = amberdb.check(path, **OPTIONS)
        assert not found.ok, where
        report = amberdb.repair(path, apply=True, **OPTIONS)
        with amberdb.open(path, create=False, **OPTIONS) as db:
            assert db.check().ok, where
            name = "a" if "a" in report.documents or not report.documents else "recovered-16"
            kept = {doc["id"]: doc for doc in db.collection(name).documents()}
        lost = docs.keys() - kept.keys()
        assert same(kept, {id: docs[id] for id in kept}), where
        assert not lost or report.lost_lsns or report.missing, f"{where}: {lost}, {report}"
        assert amberdb.check(path, **OPTIONS).ok
    finally:
        shutil.rmtree(root / "image")


def judge(root: Path, image: Image, docs: Documents, where: str) -> str:
    found = recovered(root, image)
    if isinstance(found, AmberError):
        assert str(getattr(found, "path", "")).startswith(str(root)), f"{where}: {found!r}"
        return "detected"
    documents, is_damaged = found
    assert same(documents, docs), f"{where}: {sorted(docs.keys() - documents.keys())} are missing"
    return "detected" if is_damaged else "harmless"


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("bits", [0x01, 0x80])
def test_every_flipped_byte_after_a_clean_close(place: Path, bits: int) -> None:
    docs = write(place)
    image = Image.read_from(place)
    counts: Counter[str] = Counter()
    for path in own_files(image):
        used = len(image.files[path].rstrip(b"\0")) + 16
        for offset in slices.every(13, range(min(used, len(image.files[path])))):
            where = f"{path} at {offset}"
            counts[judge(place, flipped(image, path, offset, bits), docs, where)] += 1
    assert counts["detected"] > slices.size(100, 14), counts


@pytest.mark.slow
@pytest.mark.sliced
def test_every_flipped_byte_after_a_crash(place: Path) -> None:
    """Only the last record may go: it cannot be told from a torn tail."""
    docs = crashed(place)
    image = Image.read_from(place)
    counts: Counter[str] = Counter()
    for path in own_files(image):
        used = len(image.files[path].rstrip(b"\0")) + 16
        for offset in slices.every(13, range(min(used, len(image.files[path])))):
            found = recovered(place, flipped(image, path, offset, 0x10))
            if isinstance(found, AmberError):
                assert isinstance(found, (StorageError, amberdb.OpenError)), found
                counts["detected"] += 1
                continue
            documents, is_damaged = found
            lost = docs.keys() - documents.keys()
            counts["detected" if is_damaged else f"{len(lost)} lost"] += 1
            assert lost <= (set() if is_damaged else {"late2"}), f"{path} at {offset}: {lost}"
            assert same(documents, {id: docs[id] for id in documents}), f"{path} at {offset}"
    assert counts["detected"] > slices.size(100, 14), counts
    assert counts["1 lost"] > slices.size(20, 3), counts


@pytest.mark.parametrize("how", ["missing", "empty", "half", "zeros", "directory"])
def test_a_file_that_is_not_as_it_was(place: Path, how: str) -> None:
    docs = write(place)
    image = Image.read_from(place)
    for path in (*own_files(image), f"{NAME}/data-1/data.mdb"):
        data = image.files[path]
        files, directories = {**image.files}, {*image.directories}
        if how in ("missing", "directory"):
            del files[path]
            if how == "directory":
                directories.add(path)
        else:
            files[path] = {"empty": b"", "half": data[: len(data) // 2]}.get(how, bytes(len(data)))
        verdict = judge(place, Image(directories, files), docs, f"{path} {how}")
        # A log that a clean close left empty is not needed.
        assert verdict == "detected" or (path.endswith(".wal") and how == "missing")
        if verdict == "detected":
            mended(place, Image(directories, files), docs, f"{path} {how}")


def test_a_file_of_another_database(place: Path) -> None:
    docs = write(place)
    image = Image.read_from(place)
    shutil.rmtree(place / NAME)
    write(place)
    other = Image.read_from(place)
    for path in (*own_files(image), f"{NAME}/data-1/data.mdb"):
        mixed = Image(image.directories, {**image.files, path: other.files[path]})
        assert judge(place, mixed, docs, f"{path} of another") == "detected"
        mended(place, mixed, docs, f"{path} of another")


def recycled(root: Path) -> Documents:
    """Many checkpoints: the log that the older meta page would need is gone."""
    docs: Documents = {f"d{n}": {"id": f"d{n}", "n": n, "text": "x" * 300} for n in range(300)}
    with amberdb.open(root / NAME, **OPTIONS) as db:
        for number, doc in enumerate(docs.values()):
            db.collection("a").put(doc)
            if number % 50 == 49:
                db.checkpoint()
    return docs


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("end", [write, crashed, recycled])
def test_a_zeroed_meta_page_is_never_an_older_answer(
    place: Path, page: int, end: Callable[[Path], Documents]
) -> None:
    """LMDB refuses the file, and so do we: the other meta page may be an older state."""
    docs = end(place)
    image = Image.read_from(place)
    path = f"{NAME}/data-1/data.mdb"
    data = bytearray(image.files[path])
    data[page * 4096 : (page + 1) * 4096] = bytes(4096)
    damaged = Image(image.directories, {**image.files, path: bytes(data)})
    assert judge(place, damaged, docs, f"meta {page}") == "detected"
    mended(place, damaged, docs, f"meta {page}")


@pytest.mark.parametrize("end", [write, crashed, recycled])
def test_a_meta_page_that_fell_back_is_never_an_older_answer(
    place: Path, end: Callable[[Path], Documents]
) -> None:
    """Both meta pages are of one transaction: LMDB opens its state, and the log has the rest, or
    the log's beginning shows that more was applied."""
    docs = end(place)
    image = Image.read_from(place)
    path = f"{NAME}/data-1/data.mdb"
    data = image.files[path]
    verdicts: list[str] = []
    for meta in (data[:4096], data[4096:8192]):
        fallen = Image(image.directories, {**image.files, path: meta + meta + data[8192:]})
        verdicts.append(judge(place, fallen, docs, path))
    assert sorted(verdicts) == (
        ["detected", "harmless"] if end is recycled else ["harmless", "harmless"]
    )


@pytest.mark.slow
@pytest.mark.sliced
def test_damage_inside_the_data_is_found_without_a_dead_process(place: Path) -> None:
    """By check(), also where reads would have died or been wrong; and repair loses what it says."""
    work = PageDamage(place, documents=400)
    rng = random.Random(7)
    for _ in range(EACH):
        for kind in KINDS:
            work.one(kind, rng)
    assert work.table.wrong == []
    found = sum(count for (_, how), count in work.table.checks.items() if how == "found")
    assert found > EACH, work.table.rows()
