"""Checks that one version is written everywhere, and prints its section of CHANGELOG.md.

    release.py [TAG]

pyproject.toml, amberdb/__init__.py and the newest heading of CHANGELOG.md have to agree. With a
tag, as the release workflow calls it, the tag is `v` and the version, and the heading has the day
of the release: `## 0.2.0 (2027-01-31)`.
"""

import ast
import re
import sys
import tomllib
from pathlib import Path


def release_notes(root: Path, tag: str | None = None) -> str:
    """The newest section of the changelog. Raises SystemExit with what differs."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version: str = project["version"]
    own = version_of(root / "src" / "amberdb" / "__init__.py")
    if own != version:
        sys.exit(f"pyproject.toml has {version}, and amberdb.__version__ is {own}")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading, _, section = changelog.partition("\n## ")[2].partition("\n")
    if not (found := re.fullmatch(r"(\S+) \((\d{4}-\d\d-\d\d|unreleased)\)", heading)):
        sys.exit(f"CHANGELOG.md: the heading {heading!r} is not `VERSION (YYYY-MM-DD)`")
    newest, day = found.groups()
    if newest != version:
        sys.exit(f"pyproject.toml has {version}, and the newest heading of CHANGELOG.md {newest}")
    if tag is not None and tag != f"v{version}":
        sys.exit(f"the tag is {tag}, and the version {version}: tag v{version}")
    if tag is not None and day == "unreleased":
        sys.exit(f"CHANGELOG.md: {version} has no day: write it in place of (unreleased)")
    return section.partition("\n## ")[0].strip()


def version_of(module: Path) -> str:
    """The literal, since importing the package needs what it depends on."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    sys.exit(f"{module} has no __version__")


if __name__ == "__main__":
    print(release_notes(Path(__file__).parents[1], *sys.argv[1:]))
