"""The recording of the demo: what is shown of a run, and what the picture must not have."""

import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.recording.capture import Line, RecordingError, Run, capture, styled
from tools.recording.drawing import PAUSE_S_MAX, PAUSE_S_MIN, draw, paced, wrapped

PICTURE = Path(__file__).parents[3] / "docs" / "images" / "demo.svg"
PLAIN: frozenset[str] = frozenset()


def line(text: str, at_s: float = 0.0) -> Line:
    return Line(at_s, (Run(text, PLAIN),))


def test_the_picture_of_the_demo_is_small_and_needs_nobody() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    assert len(text.encode()) < 150_000
    root = ElementTree.fromstring(text)
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds == {"svg", "title", "style", "rect", "circle", "text", "tspan", "g"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in names if "href" in name or name.startswith("on")}
    assert not re.search(r"@import|@font-face|url\(|javascript:", text)
    assert "prefers-reduced-motion" in text


def test_the_picture_of_the_demo_shows_a_run_whose_proofs_hold() -> None:
    text = " ".join(ElementTree.parse(PICTURE).getroot().itertext())
    held = re.search(r"(\d+) of (\d+) proofs hold", text)
    assert held is not None
    assert held[1] == held[2]
    assert "FAIL" not in text
    assert "killed; none is lost" in text
    assert "amberdb init my-memory" in text


def test_a_command_is_captured_with_colors_and_times() -> None:
    code = "print('\\x1b[1;32mok\\x1b[0m  下午'); print('end')"
    first, second = capture(
        [sys.executable, "-c", code], columns=40, environment={**os.environ, "PYTHONUTF8": "1"}
    )
    assert first.runs == (Run("ok", frozenset({"bold", "green"})), Run("  下午", PLAIN))
    assert second.runs == (Run("end", PLAIN),)
    assert 0 < first.at_s <= second.at_s


def test_a_command_that_fails_is_no_recording() -> None:
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    with pytest.raises(RecordingError, match="ended with 1"):
        capture(command, columns=40, environment=os.environ)


@pytest.mark.parametrize("text", ["a\x1b[2Kb", "a\rb", "\x1b[5mx"])
def test_what_cannot_be_drawn_is_refused(text: str) -> None:
    with pytest.raises(RecordingError):
        styled(text)


def test_pauses_are_changed_and_the_order_is_not() -> None:
    times = paced([line("a"), line("b", 0.5), line("c", 0.5), line("d", 60.0)])
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == pytest.approx([0.5, PAUSE_S_MIN, PAUSE_S_MAX])


def test_a_long_line_takes_the_rows_of_a_terminal() -> None:
    rows = ["".join(run.text for run in row.runs) for row in wrapped(line("ab下午c"), 4)]
    assert rows == ["ab下", "午c"]


def test_without_animation_the_end_is_shown() -> None:
    root = ElementTree.fromstring(
        draw([line(f"line {n} <&>") for n in range(9)], title="t", columns=20, rows=4)
    )
    shown = "".join(root.itertext())
    assert "line 8 <&>" in shown
    column = next(each for each in root.iter() if each.get("class") == "column")
    assert column.get("transform") == "translate(0 -90)"  # five rows are above the window
