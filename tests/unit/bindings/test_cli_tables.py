"""CSV, TSV, Parquet and Markdown: import and export on the command line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Vector
from amberdb.cli import columns, formats, parquet
from support.command_line import CommandLine

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "n": 1, "text": 'tea, "green"', "tags": ["x", "y"], "place": {"city": "Oslo"}},
    {"id": "b", "n": 2.5, "text": "two\nlines", "at": {"$date": "2026-01-01T00:00:00Z"}},
    {"id": "c", "n": None, "text": "茶 | tea", "raw": {"$bytes": "AAE="}, "done": True},
]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CommandLine]:
    run = CommandLine(tmp_path)
    run("put", "x", json.dumps(DOCUMENTS))
    yield run
    run.check()


def test_csv_is_what_a_spreadsheet_reads(cli: CommandLine) -> None:
    text = cli("export", "x", "--format", "csv").stdout
    assert text == (
        "id,n,text,tags,place,at,raw,done\n"
        'a,1,"tea, ""green""","[""x"", ""y""]","{""city"": ""Oslo""}",,,\n'
        'b,2.5,"two\nlines",,,2026-01-01T00:00:00Z,,\n'
        'c,,茶 | tea,,,,"{""$bytes"": ""AAE=""}",true\n'
    )
    few = cli("export", "x", "--format", "tsv", "--fields", "place.city,n", "--order-by", "-id")
    assert few.stdout == "place.city\tn\n\t\n\t2.5\nOslo\t1\n"


def test_csv_comes_back_with_its_types(cli: CommandLine) -> None:
    file = str(cli.folder / "x.csv.gz")
    assert cli.read("export", "x", "--output", file)["documents"] == 3
    types = "n=float,tags=json,place=json,at=date,raw=json,done=bool"
    report = cli.read("import", "y", file, "--types", types)
    assert (report["stored"], report["bad"]) == (3, 0)
    without_null = [{k: v for k, v in each.items() if v is not None} for each in DOCUMENTS]
    assert cli.documents("y") == without_null
    cli("import", "z", file, "--types", "auto", "--dates", "at")
    assert cli.documents("z") == without_null


def test_cells_are_text_unless_something_else_is_said(cli: CommandLine) -> None:
    rows = "id,zip,n,e,word,neg\n1,0150,7,1e3,true,-0\n2,,,,null,nan\n"
    cli("import", "y", "-", "--format", "csv", input=rows)
    assert cli.documents("y") == [
        {"id": "1", "zip": "0150", "n": "7", "e": "1e3", "word": "true", "neg": "-0"},
        {"id": "2", "word": "null", "neg": "nan"},
    ]
    cli("import", "z", "-", "--format", "csv", "--types", "auto,e=float", input=rows)
    assert cli.documents("z") == [
        {"id": "1", "zip": "0150", "n": 7, "e": 1000.0, "word": True, "neg": "-0"},
        {"id": "2", "word": "null", "neg": "nan"},
    ]


def test_bad_rows_are_named_and_the_others_are_stored(cli: CommandLine) -> None:
    rows = (
        b"id,n\n"
        b"a,1\n"
        b"b,2,3\n"  # line 3
        b'"two\nlines",4\n'
        b"c,\xff\n"  # line 6
        b"d,x\n"  # line 7
        b"\n"
        b"e,NaN\n"  # line 9
        b"f,9\n"
        b'g,"open\n'  # line 11
    )
    result = cli(
        "import", "y", "-", "--format", "csv", "--types", "n=float", "--on-error", "skip",
        code=5, input=rows,
    )  # fmt: skip
    told = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert told == ["line 3", "line 6", "line 7", "line 9", "line 11"]
    assert [each["id"] for each in cli.documents("y")] == ["a", "f", "two\nlines"]
    stopped = cli("import", "z", "-", "--format", "csv", "--json", code=5, input=rows)
    report = json.loads(stopped.stdout)
    assert (report["next_line"], report["stored"]) == (3, 1)
    cli("import", "z", "-", "--format", "csv", "--from-line", "4", code=5, input=rows)
    assert [each["id"] for each in cli.documents("z")] == ["a", "two\nlines"]


@pytest.mark.parametrize("head", ["", "\n", "id,\n", "id,id\n", '"open'])
def test_a_first_line_without_names_is_wrong_use(cli: CommandLine, head: str) -> None:
    cli("import", "y", "-", "--format", "csv", code=2, input=head)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_rows_of_the_same_text_are_two_documents_and_again_the_same(
    cli: CommandLine, ending: str
) -> None:
    file = cli.folder / f"y.{ending}"
    file.write_text("\ufefftext\nagain\nagain\n", encoding="utf-8")
    for _ in range(2):
        cli("import", "y", str(file))
        assert [each["text"] for each in cli.documents("y")] == ["again", "again"]


def test_a_damaged_file_says_where_to_go_on(cli: CommandLine) -> None:
    file = cli.folder / "y.csv.gz"
    rows = "id,n\n" + "".join(f"d{n:05},{n * 7919}\n" for n in range(5000))
    file.write_bytes(gzip.compress(rows.encode())[:-2000])
    result = cli("import", "y", str(file), code=5)
    assert "is damaged after line" in result.stderr
    stored = cli.read("count", "y")["count"]
    assert 0 < stored < 5000
    assert f"resume with --from-line {stored + 2}" in result.stderr


# -- Parquet ---------------------------------------------------------------------------------


def test_parquet_keeps_types(cli: CommandLine) -> None:
    file = str(cli.folder / "x.parquet")
    with amberdb.open(cli.path, background=False) as db:
        db.collection("x", indexes=[Vector("v", dim=2)]).update("a", {"v": [1.0, 2.0]})
        cli_documents = list(db["x"].documents())
    assert "3 documents" in cli("export", "x", "--output", file).stdout
    cli("import", "y", file)
    with amberdb.open(cli.path, background=False) as db:
        y = db.collection("y", indexes=[Vector("v", dim=2)])
        found = list(y.documents())
    for before, after in zip(cli_documents, found, strict=True):
        wanted = {name: value for name, value in before.items() if value is not None}
        assert amberdb.equal(wanted | {"v": 0}, after | {"v": 0})
        assert list(after.get("v", [])) == list(before.get("v", []))
    printed = cli("export", "y", "--format", "parquet", "--where", '{"id": "b"}')
    assert printed.stdout_bytes[:4] == b"PAR1"
    (cli.folder / "b.parquet").write_bytes(printed.stdout_bytes)
    cli("import", "z", str(cli.folder / "b.parquet"))
    assert cli.documents("z") == [DOCUMENTS[1]]


def test_columns_of_many_kinds() -> None:
    rows: list[dict[str, Any]] = [
        {"whole": 1, "mixed": 1, "lists": [1], "texts": ["a"], "empty": [], "none": None},
        {"whole": 2, "mixed": "a", "lists": [1.5], "texts": [], "empty": [], "map": {"a": 1}},
    ]
    found = parquet.Columns()
    for row in rows:
        found.add(row)
    kinds = {field.name: str(field.type) for field in found.schema()}
    assert kinds["whole"] == "int64"
    assert kinds["lists"] == "list<element: double>" or kinds["lists"] == "list<item: double>"
    assert "string" in kinds["texts"]
    assert {name for name in kinds if kinds[name] == "string"} == {"mixed", "empty", "none", "map"}


def test_foreign_parquet(cli: CommandLine) -> None:
    arrow = parquet.pyarrow()
    table = arrow.table(
        {
            "price": arrow.array([None, 1], arrow.decimal128(5, 2)),
            "day": arrow.array([0, 1], arrow.date32()),
            "f": arrow.array([float("nan"), 1.0]),
            "s": arrow.array([{"a": 1}, None], arrow.struct([("a", arrow.int8())])),
        }
    )
    file = cli.folder / "f.parquet"
    arrow.parquet.write_table(table, file)
    cli("import", "y", str(file), "--id-from", "day")
    found = {each.pop("id"): each for each in cli.documents("y")}
    assert found["1970-01-01"] == {"day": "1970-01-01", "s": {"a": 1}, "f": None}
    assert found["1970-01-02"] == {"day": "1970-01-02", "price": "1.00", "f": 1.0}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 1000, b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_an_error(cli: CommandLine, data: bytes) -> None:
    file = cli.folder / "y.parquet"
    file.write_bytes(data)
    assert "cannot be read" in cli("import", "y", str(file), code=5).stderr
    assert "read from its end" in cli("import", "y", "-", "--format", "parquet", code=2).stderr
    assert "--types is for" in cli("import", "y", str(file), "--types", "a=int", code=2).stderr


def test_without_the_extra_the_error_names_it(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, *_: Any) -> None:
        raise ModuleNotFoundError(name=name)

    file = cli.folder / "y.parquet"
    file.write_bytes(b"")
    monkeypatch.setattr(parquet, "import_module", missing)
    for verb in (["import", "x", str(file)], ["export", "x", "--output", str(file)]):
        assert 'pip install "amberdb[cli,parquet]"' in cli(*verb, code=2).stderr
    assert file.read_bytes() == b""


# -- formats of output -----------------------------------------------------------------------


def test_markdown_is_aligned_and_escaped(cli: CommandLine) -> None:
    text = cli("export", "x", "--fields", "id,text", "--format", "markdown").stdout
    assert text.splitlines() == [
        "| id  | text         |",
        "|-----|--------------|",
        '| a   | tea, "green" |',
        "| b   | two<br>lines |",
        "| c   | 茶 \\| tea    |",
    ]


def test_every_format_of_find(cli: CommandLine) -> None:
    ask = ["x", "--fields", "id,n", "--limit", "2"]
    assert cli("find", *ask, "--format", "csv").stdout == "id,n\na,1\nb,2.5\n"
    assert (
        cli("find", *ask, "--format", "jsonl").stdout
        == '{"id": "a", "n": 1}\n{"id": "b", "n": 2.5}\n'
    )
    as_json = cli("find", *ask, "--format", "json").stdout
    assert json.loads(as_json) == cli.read("find", *ask)
    assert cli("find", *ask, "--format", "parquet").stdout_bytes[:4] == b"PAR1"
    assert "more: --after" in cli("find", *ask, "--format", "tsv").stderr
    cli("find", *ask, "--format", "xml", code=2)
    cli("find", *ask, "--format", "csv", "--json", code=2)
    assert cli("find", "x", "--where", '{"n": 99}', "--format", "csv", code=1).stdout == "\n"


def test_json_of_an_export_is_one_list(cli: CommandLine) -> None:
    assert json.loads(cli("export", "x", "--format", "json").stdout) == DOCUMENTS
    nothing = cli("export", "x", "--format", "json", "--where", '{"n": 99}').stdout
    assert json.loads(nothing) == []
    cli("export", "x", "--format", "table", code=2)


def test_a_table_has_a_limit_of_columns(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "COLUMNS_MAX", 3)
    for format in ("csv", "parquet"):
        assert "choose with --fields" in cli("export", "x", "--format", format, code=2).stderr
    assert cli("export", "x", "--format", "jsonl").stdout.count("\n") == 3


def test_rows_are_written_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "WINDOW", 2)
    read: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(10):
            read.append(n)
            yield {"n": n}

    for format in ("csv", "tsv", "jsonl", "json", "markdown"):
        read.clear()
        found = formats.lines_of(format, ["n"], rows())
        next(found)
        next(found)
        assert len(read) <= 3, format
        assert len([*found]) >= 8
