"""The project's description on the package index: README.md, whose links are relative there.

Everything else is in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]
TAG = f"v{PROJECT['version']}"
IMAGES = (".svg", ".png", ".gif", ".webp")


def absolute(found: "re.Match[str]") -> str:
    """A link to a file of the repository, as that of the release."""
    before, path, anchor, after = found.groups(default="")
    kind = "raw" if path.endswith(IMAGES) else "blob"
    return f"{before}{SOURCE}/{kind}/{TAG}/{path}{anchor}{after}"


def with_absolute_links(markdown: str) -> str:
    """Links of Markdown, and those of HTML in it; not links to a place in the document itself."""
    relative = r"(?![a-z+.-]+:|//|#)(?:\./)?([^\s()\"'#]+)(#[^\s()\"']*)?"
    markdown = re.sub(rf"(\]\(){relative}([)\s])", absolute, markdown)
    return re.sub(rf"(\b(?:href|src|srcset)=\"){relative}(\")", absolute, markdown)


setup(
    long_description=with_absolute_links((ROOT / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
