"""Runs the checks: python -m bench.beside [--json FILE] [SYSTEM ...]"""

import argparse
import json
import multiprocessing
import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.beside.checks import run
from bench.beside.stores import STORES

_PACKAGES: Final = {"chroma": "chromadb", "mem0": "mem0", "sqlite": "sqlite_vec"}
_VERSIONS: Final = ("amberdb", "chromadb", "mem0ai", "qdrant-client", "apsw", "sqlite-vec")


def is_here(name: str) -> bool:
    """Whether the system is installed."""
    if name == "mcp":
        return "AMBERDB_BESIDE_NPM" in os.environ
    return find_spec(_PACKAGES.get(name, name)) is not None


def versions() -> dict[str, str]:
    """Of the packages that are installed, and of the server."""
    found: dict[str, str] = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    if is_here("mcp"):
        package = Path("node_modules/@modelcontextprotocol/server-memory/package.json")
        text = (Path(os.environ["AMBERDB_BESIDE_NPM"]) / package).read_text(encoding="utf-8")
        found["server-memory"] = json.loads(text)["version"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was seen")
    parser.add_argument("systems", nargs="*", choices=[[], *STORES], default=[])
    arguments = parser.parse_args()
    names = arguments.systems or [name for name in STORES if is_here(name)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:  # a process each: mem0 keeps threads
        seen = dict(zip(names, pool.map(run, names, chunksize=1), strict=True))
    if arguments.json is not None:
        kept = {"versions": versions(), "seen": seen}
        arguments.json.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
