"""The process that is killed, or that writes beside another one.

    python -m bench.beside.writer SYSTEM PATH FIRST COUNT

Invariants:
- A number is printed after add() has returned.
"""

import sys
from pathlib import Path

from bench.beside.stores import STORES


def main() -> None:
    name, path, first, count = sys.argv[1:]
    store = STORES[name](Path(path))
    for number in range(int(first), int(first) + int(count)):
        store.add(number, f"text {number}")
        print(number, flush=True)
    store.close()


if __name__ == "__main__":
    main()
