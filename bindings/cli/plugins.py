"""Functions of the user, named on the command line as module:function.

Invariants:
- Modules are looked for in the working directory too, as `python -m` does.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from amberdb.cli.verb import Exit, fail


def loaded(option: str, text: str) -> Callable[..., Any]:
    """The function of module:function. Ends the command when there is none."""
    module, _, name = text.partition(":")
    if not module or not name:
        fail(f"{option} {text}: write module:function", Exit.USAGE)
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        fail(f"{option} {text}: {error}", Exit.USAGE)
    if not callable(found):
        fail(f"{option} {text}: it is {type(found).__name__}, not a function", Exit.USAGE)
    function: Callable[..., Any] = found
    return function
