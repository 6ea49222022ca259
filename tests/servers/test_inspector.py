"""The pages of the inspector of a database on a server."""

from starlette.testclient import TestClient

import amberdb
from amberdb.inspector.web import InspectorOptions, application
from support.inspecting import assert_inert, fill
from support.servers import PostgreSQL

BASE = "http://127.0.0.1:8123"


def test_every_page_of_a_server(postgres18: PostgreSQL) -> None:
    url = postgres18.url("postgresql", postgres18.new_database("vector"))
    with amberdb.connect(url) as db:
        fill(db, 60)
        options = InspectorOptions()
        client = TestClient(application(db, options), base_url=BASE)
        client.get(f"/?token={options.token}")
        for path in (
            "/",
            "/documents?collection=memory&order=-created_at&columns=content",
            "/document?collection=memory&id=m000012",
            "/search?collection=memory&words=umbrella&like=m000012",
            "/vectors?collection=memory",
            "/vectors/points?collection=memory&group=entity",
            "/changes",
            "/activity",
            "/backups",
            "/check",
            "/export?collection=memory",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            if answer.headers["content-type"].startswith("text/html"):
                assert_inert(answer.text)
