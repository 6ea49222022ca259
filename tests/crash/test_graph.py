"""A knowledge graph, crashed after every file operation: an entity is deleted with its relations or
not at all, no relation is without its ends, and a new target ends the old one or is not there."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Database
from amberdb.graph import KnowledgeGraph
from crash.test_backup import recorded
from crash.test_context import images_after
from support import slices
from support.databases import SMALL, assert_sound
from support.recorder import RecordingFileSystem

NAMES = ["hub", *(f"n{number}" for number in range(6))]


def opened(root: Path, **options: Any) -> tuple[Database, KnowledgeGraph]:
    db = amberdb.open(root / "t.amber", **SMALL, **options)
    return db, KnowledgeGraph(db, functional=["lives_in"])


@pytest.mark.slow
@pytest.mark.sliced
def test_an_entity_goes_with_its_relations_or_not_at_all(tmp_path: Path, image: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()

    def work(fs: RecordingFileSystem) -> None:
        db, graph = opened(root, fs=fs)
        with db:
            for name in NAMES:
                graph.add_entity(name, "thing", observations=["x" * 200])
            for name in NAMES[1:]:
                graph.relate("hub", "knows", name)
                graph.relate(name, "knows", "hub")
            graph.relate("n1", "knows", "n2")
            fs.note(b"made")
            graph.delete_entity("hub")
            fs.note(b"gone")
            db.checkpoint()
            graph.relate("n2", "knows", "n3")
            for home in ("n3", "n4"):
                graph.relate("n1", "lives_in", home)

    homes: set[tuple[str, ...]] = set()
    seen = {True: 0, False: 0}
    images = images_after(recorded(root, work), image, b"made")
    for place, acknowledged in islice(images, 0, None, slices.size(1, 3)):
        db, graph = opened(image)
        with db:
            is_there = graph.entity("hub") is not None
            assert acknowledged == b"made" or not is_there, place
            homes.add(tuple(each["target"] for each in graph.relations(relation_type="lives_in")))
            relations = graph.relations(as_of="ever", limit=None)
            ends = {each[end] for each in relations for end in ("source", "target")}
            assert all(graph.entity(name) is not None for name in ends), place
            known = [each for each in relations if each["relation_type"] == "knows"]
            assert len(known) in ((13,) if is_there else (1, 2)), place
            assert_sound(db)
            seen[is_there] += 1
    assert min(seen.values()) > slices.size(3, 0), seen
    assert homes == {(), ("n3",), ("n4",)}, "one at a time"
