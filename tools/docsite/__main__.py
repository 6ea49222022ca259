"""Builds the site; a warning, or a link that leads nowhere, fails it: `python -m tools.docsite`."""

import subprocess
import sys
from pathlib import Path

from tools.docsite.api import write_reference
from tools.docsite.gather import ROOT, gather
from tools.docsite.links import lost_links

PAGES = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"


def build() -> int:
    gather(PAGES)
    write_reference(PAGES / "reference")
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [zensical, "build", "--clean", "--strict"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, end="")
    lost = list(lost_links(SITE)) if done.returncode == 0 else []
    for line in lost:
        print(f"leads nowhere: {line}")
    if done.returncode or lost or "warning" in done.stdout.lower():
        return 1
    print(f"docs: {len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(build())
