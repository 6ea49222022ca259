"""What the model of a disk lets a power loss take, where two file systems would differ."""

import random

from support.disk import PAGE, Disk
from support.images import Mode, images
from support.trace import Create, Image, Op, Rename, Sync, SyncDir, Trace, Write

OLD, NEW = b"o" * PAGE, b"n" * PAGE


def all_images(base: dict[str, bytes], ops: list[Op], mode: Mode) -> list[Image]:
    """Of 200 draws; the files of the base have the inodes 1, 2, ..."""
    inodes = {path: number for number, path in enumerate(base, 1)}
    disk = Disk.after(Trace(Image(files=base), inodes, ops))
    return list(images(disk, mode, random.Random(1), 200))


def test_ext4_has_names_in_the_order_of_its_journal() -> None:
    ops: list[Op] = [Create("a", 1), Create("b", 2), Rename("a", "c"), Create("d", 3)]
    found = {frozenset(image.files) for image in all_images({}, ops, "ext4 ordered")}
    assert found == {frozenset(names) for names in ("", "a", "ab", "bc", "bcd")}


def test_ext4_takes_earlier_names_along_when_a_new_file_is_synced() -> None:
    ops: list[Op] = [Create("a", 1), Create("b", 2), Sync(2, 2), Create("c", 3)]
    found = {frozenset(image.files) for image in all_images({}, ops, "ext4 ordered")}
    assert found == {frozenset("ab"), frozenset("abc")}
    ops = [
        Create("b", 2),
        Write(1, 0, NEW),
        Sync(1, 2),
    ]  # an overwritten page is not in the journal
    assert any("b" not in image.files for image in all_images({"f": OLD}, ops, "ext4 ordered"))


def test_ext4_has_the_data_of_a_file_as_far_as_it_grew() -> None:
    ops: list[Op] = [Write(1, PAGE * number, NEW) for number in (3, 1, 2)]
    found = {image.files["f"] for image in all_images({"f": OLD}, ops, "ext4 ordered")}
    assert found == {OLD + NEW * count for count in range(4)}
    lax = {image.files["f"] for image in all_images({"f": OLD}, ops, "random subset")}
    assert OLD + bytes(PAGE) + NEW in {data[: 3 * PAGE] for data in lax}


def test_ext4_overwrites_pages_in_any_order() -> None:
    ops: list[Op] = [Write(1, 0, NEW * 3)]
    found = {image.files["f"] for image in all_images({"f": OLD * 3}, ops, "ext4 ordered")}
    assert len(found) == 8


def test_a_synchronous_write_makes_its_own_pages_durable_and_no_others() -> None:
    ops: list[Op] = [Write(1, 0, NEW * 2), Write(1, PAGE + 8, b"meta"), Sync(1, 2, (1, 1))]
    image = all_images({"f": OLD * 2}, ops, "drop unsynced")[0]
    assert image.files["f"] == OLD + NEW[:8] + b"meta" + NEW[12:]


def test_a_name_that_was_moved_and_synced_does_not_come_back() -> None:
    """The directory that it was moved out of is not synced, and its creation still waits there."""
    base = Image({"to"}, {})
    ops: list[Op] = [Create("a", 1), Rename("a", "to/b"), SyncDir("to", 2)]
    disk = Disk.after(Trace(base, {}, ops))
    assert set(disk.image(disk.changes, {}).files) == {"to/b"}
    assert set(disk.image([], {}).files) == {"to/b"}
