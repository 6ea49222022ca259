"""Prints constraints for pip: the lowest version of each package that pyproject.toml allows.

    lowest.py EXTRA... >constraints.txt

Packages that those need are not constrained: their lower bounds are their own projects'.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:[>=]=([\w.]+))?")


def lowest(requirements: list[str]) -> Iterator[str]:
    for requirement in requirements:
        found = REQUIREMENT.match(requirement)
        assert found, requirement
        name, extras, version = found.groups()
        if name == PROJECT["name"]:
            for extra in extras.split(","):
                yield from lowest(EXTRAS[extra])
        else:
            assert version, f"{requirement} has no lower bound"
            yield f"{name}=={version}"


wanted = [*PROJECT["dependencies"], *(f"{PROJECT['name']}[{extra}]" for extra in sys.argv[1:])]
print("\n".join(sorted({*lowest(wanted)})))
