"""Archives at a target: their names, and the way from a full one to any of them.

    <chain>/<lsn>-<time>-<created>-<database>-<id>-<base>-<kind>.amberbak[.sealed]

`chain` is the time of its first archive and a random part. Lsn (16 hex digits) and time are those
of the last commit inside; `created` is when it was taken; database, id and base are the first 16
hex digits of ids, and a full archive has zeros as its base. The kind is

    full    everything; it begins a chain
    more    the commits since the archive before it
    join    the commits since the last archive that is full or join: it replaces those of kind more

Invariants:
- Within a chain names sort by Lsn, and chains by time.
- A way follows ids, never positions: archives of two shippers, or of a chain whose middle was
  removed, are not taken for one chain.
- Names that are not as above are ignored: the place may hold other things.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, cast, final

from amberdb import BackupReport, Lsn, RestorePointError
from amberdb._types import lsn_epoch

Kind: TypeAlias = Literal["full", "more", "join"]
Until: TypeAlias = int | datetime | None
Way: TypeAlias = list["Shipped"]

SUFFIX: Final = ".amberbak"
SEALED: Final = ".sealed"
_TIME: Final = "%Y%m%dT%H%M%S%fZ"
_NO_BASE: Final = "0" * 16
_NAME: Final = re.compile(
    r"(?P<chain>[0-9TZ]+-[0-9a-f]{8})/(?P<lsn>[0-9a-f]{16})-(?P<time>\d{8}T\d{12}Z)-"
    r"(?P<created>\d{8}T\d{12}Z)-(?P<database>[0-9a-f]{16})-(?P<id>[0-9a-f]{16})-"
    r"(?P<base>[0-9a-f]{16})-(?P<kind>full|more|join)\.amberbak(?P<sealed>\.sealed)?"
)


@final
@dataclass(frozen=True, slots=True)
class Shipped:
    """One archive at a target."""

    name: str
    """Within the target: `chain/...`."""
    chain: str
    kind: Kind
    lsn: Lsn
    """The last commit in it."""
    time: datetime
    """The time of that commit."""
    created: datetime
    """When it was taken."""
    database: str
    """The first 16 hex digits of the database's id; `id` and `base` likewise of archives."""
    id: str
    base: str
    is_encrypted: bool
    size_bytes: int


def new_chain(now: datetime, random: str) -> str:
    """The name of a chain that begins now; `random` is 8 hex digits."""
    return f"{_text(now)}-{random}"


def shipped_of(
    report: BackupReport, chain: str, kind: Kind, base: str, *, is_encrypted: bool
) -> Shipped:
    """An archive that was just taken, as it will be at the target. `base` is empty or an id."""
    words = [
        f"{report.lsn:016x}",
        _text(report.time),
        _text(report.created),
        report.database[:16],
        report.id[:16],
        base or _NO_BASE,
        kind,
    ]
    name = f"{chain}/{'-'.join(words)}{SUFFIX}{SEALED if is_encrypted else ''}"
    made = parsed(name, report.size_bytes)
    assert made is not None
    return made


def parsed(name: str, size_bytes: int) -> Shipped | None:
    """The archive of this name; None for a name of something else."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        time, created = _time(match["time"]), _time(match["created"])
    except ValueError:  # digits that are no date
        return None
    return Shipped(
        name=name,
        chain=match["chain"],
        kind=cast(Kind, match["kind"]),
        lsn=Lsn(int(match["lsn"], 16)),
        time=time,
        created=created,
        database=match["database"],
        id=match["id"],
        base=match["base"],
        is_encrypted=match["sealed"] is not None,
        size_bytes=size_bytes,
    )


def _text(time: datetime) -> str:
    text = time.astimezone(UTC).strftime(_TIME)
    return text.zfill(len("20260101T000000000000Z"))  # years before 1000 have fewer digits


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


# -- ways ----------------------------------------------------------------------------------------


def newest_way(archives: Iterable[Shipped]) -> Way:
    """The way to the archive with the highest Lsn that has one; empty when none has."""
    known = _by_id(archives)
    ways = (_way(known, end) for end in sorted(known.values(), key=_order, reverse=True))
    return next(filter(None, ways), list[Shipped]())


def way_until(archives: Sequence[Shipped], until: Until) -> Way:
    """The shortest way that holds the commit `until`, or the newest one. Raises RestorePointError
    when none does."""
    if until is None:
        return newest_way(archives)
    known = _by_id(archives)

    def place(archive: Shipped) -> int | datetime:
        return archive.time if isinstance(until, datetime) else archive.lsn

    def is_reached(archive: Shipped) -> bool:
        return cast(bool, place(archive) >= until)  # type: ignore[operator]

    ends = sorted(known.values(), key=_order)
    later = [end for end in ends if is_reached(end)]
    earlier = [end for end in reversed(ends) if not is_reached(end)]
    if not isinstance(until, datetime):
        earlier = []  # an Lsn has to be in the chain
    for end in later + earlier:
        way = _way(known, end)
        if way and (not is_reached(way[0]) or place(way[0]) == until):
            return way
    bounds = [way for end in ends if (way := _way(known, end))]
    if not bounds:
        return []
    first, last = bounds[0][0], bounds[-1][-1]
    raise RestorePointError(
        f"the target has the points from Lsn {first.lsn} ({first.time.isoformat()}) to Lsn "
        f"{last.lsn} ({last.time.isoformat()}), and {until} is not one of them",
        first_lsn=first.lsn,
        last_lsn=last.lsn,
    )


def is_of_another(archive: Shipped, newest: Shipped | None) -> bool:
    """Whether the place belongs to a database other than the archive's. One that was restored from
    there continues it: the epoch of its Lsns is higher."""
    if newest is None or newest.database == archive.database:
        return False
    return lsn_epoch(archive.lsn) <= lsn_epoch(newest.lsn)


def _order(archive: Shipped) -> tuple[int, datetime]:
    return archive.lsn, archive.created


def _by_id(archives: Iterable[Shipped]) -> dict[str, Shipped]:
    return {archive.id: archive for archive in archives}


def _way(known: dict[str, Shipped], end: Shipped) -> Way:
    """From a full archive to this one; empty when one is missing."""
    way, seen = [end], {end.id}
    while way[-1].kind != "full":
        base = known.get(way[-1].base)
        if base is None or base.chain != end.chain or base.id in seen:
            return []
        way.append(base)
        seen.add(base.id)
    return way[::-1]
