"""Calls that an exception interrupts at a chosen line of the package.

Invariants:
- Every line that the calling thread executes inside the package counts, in order; the exception is
  raised at one of them, once. Not in a finalizer: an exception there goes nowhere. The garbage of
  earlier tests is not collected meanwhile, which would run theirs.
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import amberdb

_PACKAGE = str(Path(amberdb.__file__).parent) + "/"


def interrupted_at(number: int, call: Callable[[], object]) -> str | None:
    """Raises KeyboardInterrupt at line event `number` of a call, from 0, and returns the place.
    None: the call ended before that."""
    left = number
    place: str | None = None

    def local(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left, place
        if event == "line" and place is None:
            if left == 0:
                code = frame.f_code
                name = code.co_filename.removeprefix(_PACKAGE)
                place = f"{name}:{frame.f_lineno} {code.co_qualname}"
                raise KeyboardInterrupt
            left -= 1
        return local

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        is_traced = code.co_filename.startswith(_PACKAGE) and code.co_name != "__del__"
        return local if is_traced else None

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
    return place
