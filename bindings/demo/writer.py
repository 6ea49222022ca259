"""The process that the demo kills: it writes without end, and prints each acknowledged write.

    python -m amberdb.demo.writer PATH ROUND STREAMS START

Invariants:
- Each transaction writes three documents in three collections, computed from its number, so that a
  reader can detect a transaction that was stored in part.
- A line "stream number" is written to stdout after the commit has returned, in one write.
"""

import os
import sys
import threading
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from amberdb import AmberError, Database, Document
from amberdb.demo.data import DemoClock, open_demo

NUMBER_MAX = 1_000_000
"""A writer that is not killed stops after this many transactions."""

_START = datetime(2026, 10, 1, tzinfo=UTC)


def stream_name(round: int, stream: int) -> str:
    return f"writer-{round}-{stream}"


def documents(name: str, number: int) -> tuple[Document, Document, Document]:
    """The documents of transaction `number` of a stream in profile, event and log. In profile each
    transaction replaces the stream's one document."""
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
    """Runs transactions one after another, and prints each after its acknowledgement."""
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
        # Also when the parent has ended and the pipe has no reader.
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
