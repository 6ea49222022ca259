"""A visit: one request of a person, with what the page needs of it, and the page as the answer.

Invariants:
- Templates are escaped (autoescape for every template), and a name that is not there is an error.
- Pages are made in a thread of the pool: the database blocks, and the event loop does not wait.
- An error of AmberDB is a page with its message and a status, never a traceback.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial, wraps
from typing import Final, TypeAlias, cast, final
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

import amberdb
from amberdb import (
    AmberError,
    CollectionMissingError,
    ConflictError,
    Database,
    MissingKeyError,
    ReadOnlyError,
    StorageError,
    TransactionError,
)
from amberdb.inspector import Checking
from amberdb.inspector.web import shapes
from amberdb.inspector.web.languages import LANGUAGES, preferred, text_of
from amberdb.inspector.web.options import BODY_BYTES_MAX, InspectorOptions

THEMES: Final = ("auto", "light", "dark")
LANGUAGE_COOKIE: Final = "amberdb-ui-language"
THEME_COOKIE: Final = "amberdb-ui-theme"
_DIGITS_MAX: Final = 19

_STATUS: Final[tuple[tuple[type[AmberError], int], ...]] = (
    (CollectionMissingError, 404),
    (MissingKeyError, 404),
    (ReadOnlyError, 403),
    (ConflictError, 409),
    (StorageError, 503),
    (TransactionError, 503),
)

Page: TypeAlias = "Callable[[Visit], Response]"


@final
class Visit:
    """One request."""

    def __init__(self, request: Request, form: Mapping[str, list[str]]) -> None:
        self._request = request
        self._form = form
        self.db: Database = request.app.state.db
        self.options: InspectorOptions = request.app.state.options
        self.checking: Checking = request.app.state.checking
        self.path = request.url.path
        chosen = request.cookies.get(LANGUAGE_COOKIE, "")
        self.language = chosen if chosen in LANGUAGES else self._default_language()
        theme = request.cookies.get(THEME_COOKIE, "")
        self.theme = theme if theme in THEMES else THEMES[0]

    def _default_language(self) -> str:
        accepted = self._request.headers.get("accept-language", "")
        return self.options.language or preferred(accepted)

    # -- what was asked ----------------------------------------------------------------------

    def asked(self, name: str, default: str = "") -> str:
        """A value of the URL."""
        return self._request.query_params.get(name, default)

    def asked_number(self, name: str) -> int | None:
        """A number of the URL; None for anything else."""
        return number_in(self.asked(name))

    def asked_all(self, name: str) -> list[str]:
        """All values of a name of the URL."""
        return self._request.query_params.getlist(name)

    def asked_fields(self, name: str) -> list[str]:
        """Fields of the URL: several values, or one with commas."""
        listed = ",".join(self.asked_all(name)).split(",")
        return [field.strip() for field in listed if field.strip()]

    def given(self, name: str) -> str:
        """A value of the form."""
        return self._form.get(name, [""])[0]

    def text(self, key: str, **values: object) -> str:
        """A text in the language of the person."""
        return text_of(self.language, key, **values)

    # -- the answer --------------------------------------------------------------------------

    def page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """A page."""
        return HTMLResponse(self.part(template, **values), status)

    def part(self, template: str, **values: object) -> str:
        """A template as HTML."""
        return (
            _environment()
            .get_template(template)
            .render(
                visit=self,
                t=self.text,
                link=link,
                db_path=self.db.path,
                is_writing=self.options.write,
                languages=LANGUAGES,
                themes=THEMES,
                here=self.here,
                version=amberdb.__version__,
                **values,
            )
        )

    def to(self, path: str, **values: object) -> Response:
        """Another page."""
        return RedirectResponse(link(path, **values), 303)

    @property
    def here(self) -> str:
        """The URL of this page, without host."""
        query = self._request.url.query
        return f"{self.path}?{query}" if query else self.path


def number_in(text: str) -> int | None:
    """The number that a text is, from 0 to what an Lsn can be; None for any other text."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    return int(text) if is_number else None


def link(path: str, **values: object) -> str:
    """The URL of a page of these. Empty values are left out; a list is several values."""
    pairs: list[tuple[str, object]] = []
    for name, value in values.items():
        listed = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
        pairs += [(name, each) for each in listed if each not in ("", None, False)]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def page(function: Page) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint of a function that makes a page."""

    @wraps(function)
    async def endpoint(request: Request) -> Response:
        form: dict[str, list[str]] = {}
        if request.method == "POST":
            form = await _form(request)
        visit = Visit(request, form)
        return await run_in_threadpool(partial(_answered, function, visit))

    return endpoint


def _answered(function: Page, visit: Visit) -> Response:
    try:
        return function(visit)
    except AmberError as error:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
        return visit.page(
            "error.html", status=status, message=error.message, kind=type(error).__name__
        )


async def _form(request: Request) -> dict[str, list[str]]:
    """The values of a form, as long as it is not larger than it may be."""
    body = bytearray()
    try:
        async for block in request.stream():
            body += block
            if len(body) > BODY_BYTES_MAX:
                return {}
    except ClientDisconnect:
        return {}
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def prepare() -> None:
    """Compiles the templates, so that the first page does not wait for them."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("amberdb.inspector.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "age",
        "clock",
        "counts",
        "highlighted",
        "moment",
        "number",
        "quoted",
        "score",
        "size",
    ):
        environment.filters[name] = getattr(shapes, name)
    environment.filters["json"] = _json
    return environment
