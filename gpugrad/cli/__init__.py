"""The command line: ``gpugrad train``, ``predict``, ``evaluate``, ``info`` and ``check``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gpugrad import backend
from gpugrad.cli.parser import make_parser
from gpugrad.cli.refusal import RefusalError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 when it failed on the way, 2 for arguments that cannot be used."""
    try:
        args = make_parser().parse_args(argv)
        args.command(args)
        sys.stdout.flush()
        return 0
    except RefusalError as refusal:
        print(f"gpugrad: {refusal}", file=sys.stderr)
        return refusal.code
    except backend.DeviceError as error:
        print(f"gpugrad: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"gpugrad: out of memory: {error}; try a smaller --batch-size, or smaller --layers", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("gpugrad: interrupted", file=sys.stderr)
        return 130
