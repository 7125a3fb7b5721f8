"""The command line: ``gpugrad train``, ``predict``, ``evaluate``, ``info`` and ``check``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from gpugrad import backend
from gpugrad.cli.parser import make_parser
from gpugrad.cli.refusal import RefusalError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 when it failed on the way, 2 for what cannot be used, 130 when it was interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files and columns may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        args = make_parser().parse_args(argv)
        args.command(args)
        sys.stdout.flush()
        return 0
    except RefusalError as refusal:
        return _failed(str(refusal), refusal.code)
    except backend.DeviceError as error:
        return _failed(str(error), 2)
    except MemoryError as error:
        remedy = "; try a smaller --batch-size, or smaller --layers" if hasattr(args, "batch_size") else ""
        return _failed(f"out of memory: {error}{remedy}", 1)
    except BrokenPipeError:  # the reader of our output has left
        _abandon_output()
        return 1
    except OSError as error:
        _abandon_output()
        return _failed(f"cannot write {error.filename or 'the output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _failed(message: str, code: int) -> int:
    print(f"gpugrad: {' '.join(message.split())}", file=sys.stderr)
    return code


def _abandon_output() -> None:
    """If the standard output takes no more, let what is left for it go, which Python would try to write at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
