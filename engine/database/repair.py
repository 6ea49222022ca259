"""repair(): makes a database that cannot be opened, or that check() finds damaged, usable again.

    offline check -> engine/integrity/repair.py -> opened, indexes built, checked

Invariants:
- Without `apply` nothing is changed.
- A repaired database is reported as repaired only after check() found nothing in it.
"""

import os
from dataclasses import replace
from typing import Unpack

from amberdb._errors import DuplicateKeyError, InvalidDocumentError, StorageError
from amberdb._public import public
from amberdb._types import Progress
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_to_write
from amberdb.engine.database.open_engines import open_engines
from amberdb.engine.integrity.offline import check_offline, locked_path
from amberdb.engine.integrity.repair import Repair, RepairReport
from amberdb.engine.options import OpenOptions, Options


@public
def repair(
    path: str | os.PathLike[str],
    *,
    apply: bool = False,
    progress: Progress | None = None,
    **settings: Unpack[OpenOptions],
) -> RepairReport:
    """Salvages every readable document of a damaged database into a sound one. Without `apply` it
    only reports what it would do.

    `progress(step, count)` is called during the work; `settings` are those of open(). Raises
    LockedError, DatabaseMissingError, NotADatabaseError, FormatError, DiskFullError, OpenError;
    StorageError when no file says which database it is, or when the result is not sound.
    """
    options = Options(**settings)
    with locked_path(os.fspath(path), options) as whole:
        checked = check_offline(whole, options, progress)
        report = RepairReport(applied=apply, problems=list(checked.report.problems))
        if not report.is_needed:
            return report
        Repair(checked, options, report, progress).run(apply)
    if apply:
        _finish(whole, options, report, progress)
    return report


def _finish(path: str, options: Options, report: RepairReport, progress: Progress | None) -> None:
    """Opens the repaired database, builds its indexes, and checks it. Raises StorageError."""
    options = replace(options, background=False)
    with Database(open_engines.add(open_to_write(path, options, create=False))) as db:
        while True:
            try:
                db.build_indexes(progress)
                break
            except (DuplicateKeyError, InvalidDocumentError):
                _drop_unbuilt(db, report)
        check = db.check(progress)
    if not check.ok:
        raise StorageError(
            f"{path} was repaired and is not sound: {check.problems[0]}; the damaged files are "
            f"kept in {', '.join(report.broken)}",
            path=path,
            report=report,
        )


def _drop_unbuilt(db: Database, report: RepairReport) -> None:
    """Drops the first index that is not built: the one that failed, since they are built in the
    order of their declaration."""
    collections = db.stats()["collections"]
    for name in db.collections():
        states = collections[name]["indexes"]
        specs = [index.spec for index in db.definition(name).indexes]
        for spec in specs:
            if states[spec.name] == "building":
                report.dropped_indexes.append((name, spec.name))
                db.collection(name, indexes=[other for other in specs if other is not spec])
                return
