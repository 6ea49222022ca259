"""The pages of care: backups with their points in time, and the check."""

from starlette.responses import Response

from amberdb.inspector import read_backups, read_points
from amberdb.inspector.web.visit import Visit


def backups(visit: Visit) -> Response:
    """The backups that the database knows of; of one chain, its points in time."""
    known = read_backups(visit.db)
    number = visit.asked_number("chain")
    chain = None
    if number is not None and number < len(known.chains):
        chain = known.chains[number]
    return visit.page(
        "backups.html",
        backups=known,
        number=number,
        chain=chain,
        points=None if chain is None else read_points(chain),
    )


def check(visit: Visit) -> Response:
    """The check that runs, or the last one."""
    return visit.page("check.html", check=visit.checking.state())


def start_check(visit: Visit) -> Response:
    """Begins a check."""
    visit.checking.start()
    return visit.to("/check")
