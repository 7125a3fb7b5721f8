"""Where compiled kernels are kept between processes: a folder of the user's own."""

from __future__ import annotations

import os
from pathlib import Path


def folder(name: str) -> Path:
    """``$GPUGRAD_CACHE_DIR/name``, by default ``~/.cache/gpugrad/name``; made if it is not there, for the user alone."""
    root = os.environ.get("GPUGRAD_CACHE_DIR") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gpugrad")
    path = Path(root, name)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
