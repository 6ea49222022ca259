"""Records `amberdb demo`.

python -m tools.recording docs/images/demo.svg
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from tools.recording.capture import Line, Run, capture
from tools.recording.drawing import draw

COLUMNS: Final = 104
ROWS: Final = 26
PROMPT: Final = Line(0.0, (Run("$ ", frozenset({"dim"})), Run("amberdb demo", frozenset({"bold"}))))


def main() -> None:
    parser = argparse.ArgumentParser(description="Records `amberdb demo` as an animated SVG.")
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target
    here = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}",  # so that `amberdb` is found
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
    }
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "amberdb.cli", "demo"]
    lines = capture(command, columns=COLUMNS, environment=environment)
    target.parent.mkdir(parents=True, exist_ok=True)
    svg = draw([PROMPT, *lines], title="amberdb demo", columns=COLUMNS, rows=ROWS)
    target.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
