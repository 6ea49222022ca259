"""Keeps the result of an adapter's tests: for .ci/frameworks, in the environment of the framework.

    framework_result.py JUNIT_XML RESULT_JSON <<<"name==version..."

Invariants:
- The same result is the same bytes: one order, a line for each fact.
- A test counts once: as an error, failed, skipped or passed.
- `framework_tests` are tests of the framework that ours run by themselves, and tell of by
  record_property(); every other test of a framework is one of pytest's.
"""

import json
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

OUTCOMES = {"error": "errors", "failure": "failed", "skipped": "skipped"}


def file_of(case: ElementTree.Element) -> str:
    """The test's file; that of a file that could not be imported too."""
    place = case.attrib["classname"] or case.attrib["name"]
    return next(part for part in place.split(".") if part.startswith("test_")) + ".py"


def counted(cases: Iterable[ElementTree.Element]) -> dict[str, int]:
    counts = dict.fromkeys(("passed", "failed", "skipped", "errors"), 0)
    for case in cases:
        tags = {child.tag for child in case}
        counts[next((name for tag, name in OUTCOMES.items() if tag in tags), "passed")] += 1
        for told in case.iter("property"):
            name = told.attrib["name"]
            counts[name] = counts.get(name, 0) + int(told.attrib["value"])
    return counts


def main(report: str, result: str) -> None:
    (run,) = ElementTree.parse(report).getroot().iter("testsuite")
    cases = list(run.iter("testcase"))
    kept = {
        "python": platform.python_version(),
        "date": run.attrib["timestamp"][:10],
        "versions": dict(sorted(line.split("==") for line in sys.stdin.read().split())),
        **counted(cases),
        "suites": {
            file: counted(case for case in cases if file_of(case) == file)
            for file in sorted(set(map(file_of, cases)))
        },
    }
    path = Path(result)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


main(*sys.argv[1:])
