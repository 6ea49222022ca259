"""The process that the demo kills: writes without end, and tells each acknowledged write.

    python -m amberdb.demo.writer PATH ROUND STREAMS START

Invariants:
- Each transaction writes three documents in three collections, all computed from its numbers, so
  whoever reads them later can tell a half-written one.
- A line "stream number" goes to stdout only after the commit has returned, in one write.
"""

import os
import sys
import threading
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from amberdb._errors import AmberError
from amberdb._types import Document
from amberdb.demo.data import DemoClock, open_demo
from amberdb.engine.database.database import Database

NUMBER_MAX = 1_000_000
"""Where a writer that nobody kills stops by itself."""

_START = datetime(2026, 10, 1, tzinfo=UTC)


def stream_name(round: int, stream: int) -> str:
    return f"writer-{round}-{stream}"


def documents(name: str, number: int) -> tuple[Document, Document, Document]:
    """What transaction `number` of a stream leaves in profile, event and log. The profile has
    one document per stream, which each transaction replaces."""
    id = f"{name}-{number:07}"
    created_at = _START + timedelta(milliseconds=number)
    content = blake2b(id.encode(), digest_size=48).hexdigest()
    common = {"entity_id": name, "created_at": created_at}
    return (
        {"id": name, "category": "counter", "last": number, **common},
        {"id": id, "content": content, "number": number, **common},
        {"id": id, "session": -1, "event": id, "content": content[::-1], **common},
    )


def write(db: Database, name: str) -> None:
    """Transactions one after another, each told once it is acknowledged."""
    for number in range(NUMBER_MAX):
        profile, event, log = documents(name, number)
        with db.transaction() as tx:
            tx["profile"].put(profile)
            tx["event"].put(event)
            tx["log"].put(log)
        os.write(1, f"{name} {number}\n".encode())


def _run(db: Database, name: str) -> None:
    try:
        write(db, name)
    except (AmberError, OSError) as error:
        # Also when the parent has gone: nobody reads the pipe any more.
        try:
            os.write(2, f"error: {error}\n".encode())
        finally:
            os._exit(1)


def main() -> None:
    path, round, streams, start = sys.argv[1:]
    db = open_demo(path, DemoClock(float(start)))
    names = [stream_name(int(round), stream) for stream in range(int(streams))]
    threads = [threading.Thread(target=_run, args=(db, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.close()


if __name__ == "__main__":
    main()
