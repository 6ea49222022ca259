"""What is at a target, and the removal of what is old.

Invariants:
- The newest chain is never removed, nor a part of a chain: every point after the time stays one
  that can be restored.
- A chain is removed from its end, so that what a crash leaves can be restored.
"""

from datetime import datetime

from amberdb.ship.archives import Shipped, newest_way, parsed
from amberdb.ship.target import S3Options, Target, target_of


def shipped(target: str, *, s3: S3Options | None = None) -> list[Shipped]:
    """The archives at a target, by chain and Lsn.

        for archive in shipped("s3://bucket/memory"):
            print(archive.name, archive.lsn, archive.time, archive.size_bytes)

    Raises the errors of targets.
    """
    return listed(target_of(target, s3))


def prune(target: str, before: datetime, *, s3: S3Options | None = None) -> list[Shipped]:
    """Removes the chains whose last archive was taken before a time; returns their archives.

    The newest chain stays. After an erase() the next archive begins a new chain: wait until it is
    shipped, and prune with `before=receipt.completed`. Raises ValueError for a time without a zone,
    and the errors of targets.
    """
    if before.tzinfo is None:
        raise ValueError(f"before={before!r}: give a datetime with a time zone")
    place = target_of(target, s3)
    archives = listed(place)
    newest = newest_way(archives)
    kept = {newest[-1].chain} if newest else set[str]()
    kept |= {archive.chain for archive in archives if archive.created >= before}
    removed = [archive for archive in archives if archive.chain not in kept]
    place.delete([archive.name for archive in reversed(removed)])
    return removed


def listed(place: Target) -> list[Shipped]:
    """The archives at a target, by chain and Lsn."""
    found = (parsed(name, size) for name, size in place.objects())
    return sorted((each for each in found if each), key=lambda each: (each.chain, each.name))
