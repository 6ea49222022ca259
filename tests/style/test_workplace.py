"""Nothing in the repository speaks of the machine or the desk it was written on."""

import re

import pytest

from style.repo import ROOT, files

# In halves, or this file would complain of itself. Matched in bytes, so that kept results and
# golden stores are searched too.
TRACES = {
    "a path of one machine": r"(?<![\w.~-])/(?:wo" + r"rk|ho" + r"me|Us" + r"ers)/\w",
    "a temporary file of a session": r"/t" + r"mp/(?:brief|bash_jobs)",
    "a tracker's command": r"\bissues" + r" show\b",
    "a tracker's number": r"(?i)\b(?:issue|fix(?:e[sd])?|close[sd]?|gh-?)\s*#" + r"\d+",
    "a package registry": r"(?i)\b(?:pypi\.o" + r"rg|pythonhos" + r"ted|registry\.npm" + r"js|"
    r"crates\.i" + r"o)\b",
    "a secret": r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----",
}

PLANTED = {
    "a path of one machine": "see /wo" + "rk/main/x",
    "a temporary file of a session": "/t" + "mp/brief.md",
    "a tracker's command": "issues" + " show 12",
    "a tracker's number": "fixes #" + "12",
    "a package registry": "https://pypi.o" + "rg/simple",
    "a secret": "-----BEGIN PRIVATE" + " KEY-----",
}


@pytest.mark.parametrize("trace", TRACES)
def test_no_trace_of_the_workplace(trace: str) -> None:
    pattern = re.compile(TRACES[trace].encode())
    found = [path for path in files() if pattern.search((ROOT / path).read_bytes())]
    assert found == []


@pytest.mark.parametrize("trace", TRACES)
def test_trace_is_seen(trace: str) -> None:
    assert re.search(TRACES[trace], PLANTED[trace])
    assert not re.search(TRACES[trace], "networks, tests/framework/ and issue no. 12 of a journal")
