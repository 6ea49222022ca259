"""The change feed: keep an index, a cache or another service up to date."""

import amberdb

with amberdb.open("change_feed.amber") as db:
    tasks = db.collection("task")

    # Its position is kept in the database, and the log is kept for it.
    mirror = db.subscriber("mirror")
    copy: dict[str, object] = {}

    tasks.put({"id": "a", "title": "write"})
    tasks.put({"id": "b", "title": "test"})
    tasks.update("a", {"title": "write more"})
    tasks.delete("b")

    def catch_up() -> int:
        changes = list(mirror.changes())
        for change in changes:
            print(change.lsn, change.op, change.collection, change.id)
            if change.op == "put":
                copy[change.id] = change.document
            else:  # "delete", or "expire"
                copy.pop(change.id, None)
        if changes:
            # After the work, so that a crash repeats it; and after the whole of a commit, since
            # all changes of one commit have the same Lsn.
            mirror.acknowledge(changes[-1].lsn)
        return len(changes)

    assert catch_up() == 4
    assert copy == {"a": {"id": "a", "title": "write more"}}
    assert catch_up() == 0

    # A service would wait for more: mirror.changes(follow=True)
    mirror.remove()
