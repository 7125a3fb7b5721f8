"""Anomaly mode: find the line that made the first NaN or infinity, in forward, backward and double backward."""

from __future__ import annotations

import linecache
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpugrad import backend, tape
from gpugrad.tape import Reverse, is_inexact, plain

_PACKAGE = str(Path(__file__).parent)


class detect_anomaly:  # noqa: N801
    """``with gg.detect_anomaly():`` raise at the first operation that makes a NaN or an infinity out of finite values.

    In forward the error names the user's line that called the operation; in backward (and double backward) the line
    whose derivative it is. Arrays that backward needs are checksummed when saved, so that a NumPy function that
    wrote into them is found out as well. Everything runs slower; the mode is for the whole process.

    Args:
        check_nan, check_inf: what counts as an anomaly.

    Raises:
        RuntimeError: inside the block, as described.
    """

    def __init__(self, check_nan: bool = True, check_inf: bool = True) -> None:
        self.check_nan, self.check_inf = check_nan, check_inf
        self.walking = threading.local()

    def __enter__(self) -> detect_anomaly:
        self.saved = tape.observer
        tape.observer = self
        return self

    def __exit__(self, *_: object) -> None:
        tape.observer = self.saved

    # ------------------------------------------------------------------ what the tape calls

    def compute(self, op: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
        y = op.evaluate(args, params)
        found = self._anomaly(y)
        if found and not self._stack and not any(map(self._anomaly, args)):
            raise RuntimeError(f"{op.name} made {found} out of finite values, at {_shown(user_line())}")
        return y

    def recorded(self, node: Reverse) -> None:
        notes = node.notes = node.notes or {}
        notes["where"] = f"the backward of {self._stack[-1].op.name}, called at {_where(self._stack[-1])}" if self._stack else _shown(user_line())
        notes["sums"] = [_checksum(v) for v in node.vals]

    def pull(self, node: Reverse, wanted: Sequence[Any], g: Any, y: Any, vals: Sequence[Any]) -> Any:
        sums = (node.notes or {}).get("sums")
        if sums is not None and sums != [_checksum(v) for v in vals]:
            raise RuntimeError(f"an array that {node.op.name} saved was changed in place after it ran (it was called at {_where(node)}): change a copy instead")
        self._stack.append(node)
        try:
            pulled = node.op.pull(node, wanted, g, y, vals)
        finally:
            self._stack.pop()
        found = self._anomaly(pulled)
        if found and not self._anomaly(g):
            raise RuntimeError(f"the backward of {node.op.name} made {found} out of a finite gradient; it was called at {_where(node)}")
        return pulled

    # ------------------------------------------------------------------ helpers

    @property
    def _stack(self) -> list[Reverse]:
        if not hasattr(self.walking, "stack"):
            self.walking.stack = []
        return self.walking.stack

    def _anomaly(self, x: Any) -> str:
        """What is wrong with ``x``, in words; empty when nothing is."""
        if isinstance(x, (list, tuple)):
            return next(filter(None, map(self._anomaly, x)), "")
        x = plain(x)
        if isinstance(x, float):
            x = np.asarray(x)
        if not hasattr(x, "dtype") or not is_inexact(x.dtype):
            return ""
        xp = backend.namespace(x)
        if self.check_nan and bool(xp.isnan(x).any()):
            return "NaN"
        return "an infinity" if self.check_inf and bool(xp.isinf(x).any()) else ""


def set_detect_anomaly(mode: bool, check_nan: bool = True) -> None:
    """Turn anomaly mode on or off for the whole process; see :class:`detect_anomaly`."""
    tape.observer = detect_anomaly(check_nan) if mode else None


def user_line() -> tuple[str, int]:
    """File and line of the innermost frame that is not the library's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<")):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _shown(line: tuple[str, int]) -> str:
    text = linecache.getline(*line).strip()
    return f"{line[0]}:{line[1]}" + (f": {text}" if text else "")


def _where(node: Any) -> str:
    return (node.notes or {}).get("where", "a line outside anomaly mode")


def _checksum(x: Any) -> int:
    x = plain(x)
    return zlib.crc32(np.ascontiguousarray(backend.to_device(x, "cpu")).tobytes()) if backend.is_array(x) else 0
