"""The machine that a run was made on: processor, kernel, file system, versions.

Invariants:
- A missing fact is left out or named "unknown"; it never fails the run.
"""

import importlib.metadata
import os
import platform
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PEERS = ("hnswlib", "sqlite-vec", "apsw", "chromadb", "lancedb", "stratadb", "zvec")
"""Packages of the extra `peers`: listed when they are installed."""
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


def machine(directory: Path) -> dict[str, Any]:
    """The facts that figures depend on: processor, kernel, file system, versions."""
    file_system = file_system_of(directory)
    packages = ("amberdb", "lmdb", "msgspec", "msgpack", "rocksdict")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {name: version for name in PEERS if (version := _version(name))}
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system,
        "durable": file_system not in _MEMORY_FILE_SYSTEMS,
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **versions,
    }


def _version(package: str) -> str:
    """ "" when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine_line(facts: Mapping[str, Any]) -> str:
    versions = ("python", "amberdb", "sqlite", "lmdb", "msgpack", "rocksdict", *PEERS)
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['kernel']}, "
        f"{facts['file_system']}, load {facts['load_1min']}; "
        + ", ".join(f"{name} {facts[name]}" for name in versions if name in facts)
    )


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds `directory`, or "unknown"."""
    wanted = directory.resolve()
    best, kind = -1, "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return sys.platform
    for mount in mounts:
        _, point, name, *_ = mount.split(" ")
        point = point.replace("\\040", " ")
        if wanted.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), name
    return kind


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
