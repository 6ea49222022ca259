"""The pages of the inspector without a browser: who is let in, what is escaped, what is refused,
and that both languages say all of it."""

import json
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

import amberdb
from amberdb import Database
from amberdb._jsonl.text import loads
from amberdb.inspector.web import InspectorOptions, application
from amberdb.inspector.web.guard import SECURITY_HEADERS
from amberdb.inspector.web.languages import LANGUAGES, catalogue, preferred
from amberdb.inspector.web.options import BODY_BYTES_MAX
from amberdb.inspector.web.shapes import highlighted
from support.databases import OpenDatabase
from support.inspecting import MARKUP, assert_inert, fill, fill_with_markup

BASE = "http://127.0.0.1:8123"
WEB = Path(amberdb.__file__).parent / "inspector/web"


def client_of(db: Database, *, enter: bool = True, **options: Any) -> TestClient:
    """A browser that has opened the printed URL."""
    is_closing = options.pop("is_closing", lambda: False)
    settings = InspectorOptions(**options)
    app = application(db, settings, is_closing=is_closing)
    client = TestClient(app, base_url=BASE, headers={"Origin": BASE})
    if enter:
        assert client.get(f"/?token={settings.token}").status_code == 200
    return client


def url(path: str, **values: object) -> str:
    return f"{path}?{urlencode(values)}"


@pytest.fixture
def filled(db: Database) -> Database:
    fill(db)
    return db


@pytest.fixture
def client(filled: Database) -> Iterator[TestClient]:
    with amberdb.open(filled.path, read_only=True) as reader:
        yield client_of(reader)


@pytest.fixture
def writer(filled: Database) -> TestClient:
    return client_of(filled, write=True)


# -- who is let in -------------------------------------------------------------------------------


def test_without_the_token_of_the_url_nobody_is_let_in(filled: Database) -> None:
    client = client_of(filled, enter=False)
    for path in ("/", "/documents?collection=memory", "/static/app.js", "/changes/stream", "/x"):
        assert client.get(path).status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert client.get("/?token=").status_code == 401
    assert client.get("/", headers={"Cookie": "amberdb-ui-8123=wrong"}).status_code == 401
    assert client.get("/", headers={"Accept-Language": "zh-CN"}).text.startswith("请打开")


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(filled: Database) -> None:
    options = InspectorOptions()
    client = TestClient(application(filled, options), base_url=BASE, follow_redirects=False)
    answer = client.get(f"/documents?collection=memory&token={options.token}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/documents?collection=memory"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"amberdb-ui-8123={options.token};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert client.get("/").status_code == 200
    for path in ("//evil.example", "/\\evil.example"):
        there = client.get(f"{BASE}{path}/?token={options.token}").headers["location"]
        assert there.startswith("/evil.example")
    assert options.token not in repr(options)
    assert InspectorOptions().token != options.token


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8123", "10.0.0.5:80", ""])
def test_only_names_of_this_machine_are_served(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


def test_a_page_of_another_origin_gets_nothing(client: TestClient, writer: TestClient) -> None:
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9000",
        "https://127.0.0.1:8123",
    ):
        assert client.get("/", headers={"Origin": origin}).status_code == 403
        answer = writer.post("/document/delete", headers={"Origin": origin})
        assert answer.status_code == 403
    for site in ("cross-site", "same-site"):
        assert client.get("/", headers={"Sec-Fetch-Site": site}).status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200
    del writer.headers["Origin"]
    assert writer.post("/document/delete").status_code == 403
    assert writer.get("/").status_code == 200


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    answers = [
        client.get("/"),
        client.get("/no-such-page"),
        client.get("/static/app.js"),
        client.get("/static/../guard.py"),
        client.get("/", headers={"Host": "evil.example"}),
        client.get("/documents?collection=none"),
        client.get(url("/export", collection="memory", only="page")),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 404, 421, 404, 200]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_a_form_has_a_limit(writer: TestClient) -> None:
    large = {"Content-Length": str(BODY_BYTES_MAX + 1)}
    assert writer.post("/document/edit", headers=large).status_code == 413
    assert writer.post("/document/edit", headers={"Content-Length": "x"}).status_code == 413


def test_options_are_of_this_machine() -> None:
    wrongs: list[dict[str, Any]] = [{"host": "0.0.0.0"}, {"port": 70_000}, {"language": "fr"}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"use|give"):
            InspectorOptions(**wrong)


# -- pages ---------------------------------------------------------------------------------------

PAGES = (
    "/",
    "/documents?collection=memory",
    url("/documents", collection="memory", where='{"kind": "note"}', order="-created_at"),
    url("/documents", collection="memory", columns="content,place.city,$updated_at", limit=25),
    "/documents?collection=audit",
    "/document?collection=memory&id=m000012",
    "/document?collection=memory&id=m000001&since=5",
    "/search?collection=memory",
    url("/search", collection="memory", words="umbrella", like="m000012"),
    url("/search", collection="memory", words="+umbrella -car", language="query"),
    url("/search", collection="memory", like=json.dumps([1.0] * 32)),
    "/vectors?collection=memory&group=entity",
    "/vectors?collection=profile",
    "/changes",
    "/activity",
    "/backups",
    "/check",
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_in_both_languages(
    client: TestClient, language: str, filled: Database, tmp_path: Path
) -> None:
    filled.backup(tmp_path / "b.amberbak")
    client.post("/settings", data={"language": language, "back": "/"})
    for path in (*PAGES, "/backups?chain=0"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert f'<html lang="{language}"' in answer.text
        assert_inert(answer.text)
    assert catalogue(language)["nav.collections"] in client.get("/").text


def test_documents_are_paged_filtered_and_their_plan_is_shown(client: TestClient) -> None:
    first = client.get(url("/documents", collection="memory", order="id", limit=25)).text
    assert "m000024" in first
    assert "m000025" not in first
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following is not None
    second = client.get(following[1].replace("&amp;", "&")).text
    assert "m000025" in second
    assert "m000024" not in second
    built = client.get(
        "/documents?collection=memory&build=1&limit=50"
        "&field=kind&operator=%24eq&value=note&field=importance&operator=%24gte&value=0.9"
        "&field=&operator=%24eq&value="
    )
    assert built.url.params["where"] == '{"kind": "note", "importance": {"$gte": 0.9}}'
    assert "ordered:kind" in built.text
    assert "{importance: {$gte: ?}}" in built.text
    dropped = client.get(
        "/documents?collection=memory&build=1&drop=0&field=kind&operator=%24eq&value=note"
    )
    assert "where" not in dropped.url.params


def test_before_a_long_scan_a_person_is_asked(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.inspector.web.browse.SCAN_DOCUMENTS", 100)
    asked = url("/documents", collection="memory", where='{"importance": {"$gte": 0.5}}')
    shown = client.get(asked).text
    assert catalogue("en")["scan.button"] in shown
    assert "m000012" not in shown
    assert "m000012" in client.get(f"{asked}&scan=1").text
    for quick in (url("/documents", collection="memory", where='{"kind": "note"}'), PAGES[1]):
        assert catalogue("en")["scan.button"] not in client.get(quick).text
    assert catalogue("en")["scan.button"] in client.get(f"{PAGES[1]}&order=importance").text


def test_a_filter_that_cannot_be_says_why_and_stays(client: TestClient) -> None:
    for where in ("{", '{"kind": {"$huh": 1}}', "[]"):
        answer = client.get(url("/documents", collection="memory", where=where))
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
        assert_inert(answer.text)
    answer = client.get(url("/search", collection="memory", words='"open', language="query"))
    assert answer.status_code == 400
    assert client.get("/documents?collection=memory&after=x").status_code == 400
    assert client.get("/vectors/points?collection=profile").status_code == 400


@pytest.mark.parametrize("number", ["-1", "x", "\u0663", "9" * 30, "1e3"])
def test_a_number_that_is_none_is_left_out(client: TestClient, number: str) -> None:
    for name, path in (
        ("since", "/document?collection=memory&id=m000012&"),
        ("chain", "/backups?"),
        ("limit", "/documents?collection=memory&"),
    ):
        assert client.get(path + urlencode({name: number})).status_code == 200


def test_what_is_missing_is_404(client: TestClient) -> None:
    for path in (
        "/documents?collection=none",
        "/documents",
        "/no",
        "/document?collection=memory&id=x",
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert_inert(answer.text)
    assert client.post("/document/edit").status_code == 404


def test_a_deleted_document_has_its_history(client: TestClient, filled: Database) -> None:
    filled["memory"].delete("m000012")
    answer = client.get("/document?collection=memory&id=m000012")
    assert answer.status_code == 200
    assert "op-delete" in answer.text
    assert "<ins>Bergen</ins>" in answer.text


def test_points_of_the_map_and_exports(client: TestClient, filled: Database) -> None:
    points = client.get("/vectors/points?collection=memory&group=entity").json()
    assert len(points["points"]) == 400
    assert points["points"][12]["href"] == "/document?collection=memory&id=m000012"
    where = '{"kind": "call"}'
    page = client.get(url("/export", collection="memory", where=where, only="page", limit=25))
    assert page.headers["content-disposition"] == 'attachment; filename="export.jsonl"'
    assert len(page.text.splitlines()) == 25
    whole = client.get(url("/export", collection="memory", where=where)).text.splitlines()
    assert len(whole) == filled["memory"].count({"kind": "call"})
    one = client.get("/export?collection=memory&id=m000012").text
    assert amberdb.equal(loads(one), filled["memory"]["m000012"])
    assert client.get(url("/export", collection="memory", where="{")).status_code == 400
    assert client.get("/export?collection=memory&id=none").status_code == 404


def test_a_page_that_fails_says_so_and_no_more(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(filled)

    def fail(_: Database) -> float:
        return 1 / 0

    monkeypatch.setattr(Database, "stats", fail)
    quiet = TestClient(client.app, BASE, raise_server_exceptions=False, cookies=client.cookies)
    answer = quiet.get("/")
    assert answer.status_code == 500
    assert catalogue("en")["error.failed"] in answer.text
    assert "division" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


def test_language_and_theme_are_kept_and_lead_nowhere_else(client: TestClient) -> None:
    answer = client.post("/settings", data={"theme": "dark", "back": "/check"})
    assert answer.url.path == "/check"
    assert 'data-theme="dark"' in answer.text
    client.post("/settings", data={"theme": "pink", "language": "xx"})
    assert 'data-theme="dark"' in client.get("/").text
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", "evil", ""):
        answer = client.post("/settings", data={"back": back}, follow_redirects=False)
        assert answer.headers["location"] == "/"


def test_a_check_with_progress(client: TestClient) -> None:
    answer = client.post("/check")
    assert answer.url.path == "/check"
    while 'hx-trigger="every' in answer.text:
        answer = client.get("/check")
    assert catalogue("en")["check.ok"] in answer.text


def test_the_stream_has_rows_that_are_escaped(filled: Database) -> None:
    closing = chain([False], repeat(True))
    client = client_of(filled, is_closing=lambda: next(closing))
    since = filled.stats().last_lsn
    filled["profile"].put({"id": MARKUP, "name": MARKUP})
    answer = client.get(f"/changes/stream?since={since}")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert f"id: {filled.stats().last_lsn}\n" in answer.text
    rows = "\n".join(
        line.removeprefix("data: ") for line in answer.text.splitlines() if "data: " in line
    )
    assert "op-put" in rows
    assert_inert(rows)


def test_streams_have_a_limit(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amberdb.inspector.web.activity.STREAMS_MAX", 0)
    assert client_of(filled).get("/changes/stream").status_code == 503


# -- what is stored is text ----------------------------------------------------------------------


@pytest.mark.parametrize("write", [False, True])
def test_a_document_full_of_markup_is_text_everywhere(db: Database, write: bool) -> None:
    fill_with_markup(db)
    client = client_of(db, write=write)
    pages = [
        "/",
        url("/documents", collection=MARKUP),
        url("/documents", collection=MARKUP, where=json.dumps({"text": MARKUP}), order=MARKUP),
        url("/documents", collection=MARKUP, columns=f"{MARKUP},map,text,$version"),
        url("/document", collection=MARKUP, id=MARKUP),
        url("/document", collection=MARKUP, id=MARKUP + "2"),
        url("/search", collection=MARKUP, words="umbrella", like=MARKUP),
        url("/search", collection=MARKUP, words=MARKUP),
        url("/vectors", collection=MARKUP, field=MARKUP, group=MARKUP),
        url("/documents", collection=MARKUP + "2"),
        url("/documents", collection=MARKUP, where=MARKUP),
        "/changes",
        f"/{MARKUP}",
    ]
    if write:
        pages.append(url("/erase", collection=MARKUP, where=MARKUP))
    for page in pages:
        answer = client.get(page)
        assert answer.headers["content-type"].startswith("text/html")
        assert_inert(answer.text)
    shown = client.get(url("/document", collection=MARKUP, id=MARKUP)).text
    assert "&lt;script&gt;alert(1)" in shown
    found = client.get(url("/search", collection=MARKUP, words="umbrella")).text
    assert "<mark>umbrella</mark>" in found


def test_the_test_of_markup_sees_a_breach() -> None:
    for page in (
        "<script>alert(1)</script>",
        "<p onclick=x>",
        '<a href="javascript:x">',
        '<a href="//evil.example">',
        "<img src=/x>",
        '<p style="x">',
    ):
        with pytest.raises(AssertionError):
            assert_inert(page)


def test_json_is_marked_part_by_part() -> None:
    text = '{"a<b": "</span>\\"x", "n": [-1.5e3, true, null]}'
    shown = str(highlighted(text))
    assert '<span class="j-key">&#34;a&lt;b&#34;</span>' in shown
    assert '<span class="j-text">&#34;&lt;/span&gt;\\&#34;x&#34;</span>' in shown
    assert '<span class="j-number">-1.5e3</span>' in shown
    assert '<span class="j-word">null</span>' in shown
    assert "<b" not in str(highlighted('{"a": "a text that is cut <b>'))


# -- changes -------------------------------------------------------------------------------------


def test_read_only_has_no_way_to_write(client: TestClient, filled: Database) -> None:
    before = filled.stats().last_lsn
    form = {"collection": "memory", "id": "m000012", "confirm": "m000012"}
    for path in ("/document/edit", "/document/delete", "/erase"):
        assert client.post(path, data=form).status_code == 404
    for path in PAGES:
        shown = client.get(path).text
        assert "/document/delete" not in shown
        assert "/erase" not in shown
    assert filled.stats().last_lsn == before


def test_pages_of_a_reader_refuse_even_where_routes_are_there(filled: Database) -> None:
    with amberdb.open(filled.path, read_only=True) as reader:
        client = client_of(reader, write=True)
        form = {"collection": "memory", "id": "m000012", "confirm": "m000012"}
        answer = client.post("/document/delete", data=form)
        assert answer.status_code == 400
        assert "m000012" in filled["memory"]


def test_an_edit_with_its_confirmation(writer: TestClient, filled: Database) -> None:
    memories = filled["memory"]
    version = memories.record("m000001").version
    form = {
        "collection": "memory",
        "id": "m000001",
        "version": str(version),
        "document": '{"id": "m000001", "content": "new"}',
        "confirm": "m00001",
    }
    refused = writer.post("/document/edit", data=form)
    assert refused.status_code == 400
    assert "&#34;content&#34;: &#34;new&#34;" in refused.text  # what was typed is still there
    done = writer.post("/document/edit", data={**form, "confirm": "m000001"})
    assert done.url.path == "/document"
    assert memories["m000001"] == {"id": "m000001", "content": "new"}
    again = writer.post("/document/edit", data={**form, "confirm": "m000001"})
    assert again.status_code == 400
    assert "changed meanwhile" in again.text
    bad = {**form, "version": "x", "document": "{", "confirm": "m000001"}
    assert writer.post("/document/edit", data=bad).status_code == 400


def test_the_form_of_an_edit_stores_what_is_there(writer: TestClient, filled: Database) -> None:
    document = filled["memory"]["m000012"]
    shown = writer.get("/document?collection=memory&id=m000012").text
    text = re.search(r"<textarea[^>]*>\n?(.*?)</textarea>", shown, re.S)
    assert text is not None
    import html

    form = {
        "collection": "memory",
        "id": "m000012",
        "version": str(filled["memory"].record("m000012").version),
        "document": html.unescape(text[1]).replace("\n", "\r\n"),
        "confirm": "m000012",
    }
    assert writer.post("/document/edit", data=form).url.path == "/document"
    assert amberdb.equal(filled["memory"]["m000012"], document)


def test_deletes_and_erasures_with_theirs(writer: TestClient, filled: Database) -> None:
    form = {"collection": "memory", "id": "m000001", "confirm": "memory"}
    assert writer.post("/document/delete", data=form).status_code == 400
    assert "m000001" in filled["memory"]
    done = writer.post("/document/delete", data={**form, "confirm": "m000001"})
    assert done.url.path == "/documents"
    assert "m000001" not in filled["memory"]
    asked = {"collection": "memory", "where": '{"kind": "call"}', "reason": "asked", "confirm": "x"}
    refused = writer.post("/erase", data=asked)
    assert refused.status_code == 400
    assert filled["memory"].count({"kind": "call"})
    erased = writer.post("/erase", data={**asked, "confirm": "memory"})
    assert erased.status_code == 200
    assert filled.erasures()[0].id in erased.text
    assert not filled["memory"].count({"kind": "call"})


# -- languages -----------------------------------------------------------------------------------


def test_both_catalogues_have_the_same_keys_and_names() -> None:
    def names(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}

    english, *others = (catalogue(language) for language in LANGUAGES)
    for other in others:
        assert list(other) == list(english)
        for key, text in english.items():
            assert names(other[key]) == names(text), key
            assert other[key].strip()


def test_every_text_is_used_and_every_used_one_is_there() -> None:
    sources = [*WEB.glob("*.py"), *WEB.glob("templates/*.html")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    words = set(re.findall(r"""["']([a-z_]+\.[a-z_]+)["']""", text))
    begun = tuple(re.findall(r"""["']([a-z_]+\.(?:[a-z]+_)?)["'] ~""", text))
    keys = set(catalogue("en"))
    used = {key for key in keys if key in words or key.startswith(begun)}
    assert keys - used == set()
    groups = {key.partition(".")[0] for key in keys}
    others = {"export.jsonl", *begun, *(path.name for path in sources)}
    named = {word for word in words if word.partition(".")[0] in groups} - others
    assert named - keys == set()


def test_the_language_of_the_browser(filled: Database) -> None:
    assert preferred("zh-CN,zh;q=0.9,en;q=0.8") == "zh"
    assert preferred("fr, en;q=0.5, zh;q=0.2") == "en"
    assert preferred("") == preferred("*") == preferred(";;q=x,") == "en"
    chinese = client_of(filled, language="zh")
    assert '<html lang="zh"' in chinese.get("/", headers={"Accept-Language": "en"}).text


# -- what is loaded ------------------------------------------------------------------------------


def test_neither_the_core_nor_the_reading_model_loads_a_web_framework() -> None:
    work = (
        "import sys, amberdb, amberdb.inspector\n"
        "wrong = {'starlette', 'jinja2', 'uvicorn', 'markupsafe'} & set(sys.modules)\n"
        "assert not wrong, wrong"
    )
    subprocess.run([sys.executable, "-c", work], check=True)


def test_static_files_are_of_the_package_alone(client: TestClient) -> None:
    for name in ("vendor/htmx-LICENSE.txt", "vendor/uplot-LICENSE.txt", "style.css"):
        assert client.get(f"/static/{name}").status_code == 200
    style = client.get("/static/style.css").text
    script = client.get("/static/app.js").text
    layout = (WEB / "templates/layout.html").read_text()
    for text in (style, script, layout):
        assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in text


def test_the_database_is_read_while_it_is_written(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db, 50)
    with amberdb.open(db.path, read_only=True) as reader:
        client = client_of(reader)
        db["profile"].put({"id": "new", "name": "seen at once"})
        assert "seen at once" in client.get("/documents?collection=profile").text
