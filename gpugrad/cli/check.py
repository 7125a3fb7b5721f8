"""``gpugrad check``: whether the kernels give the right numbers on this machine."""

from __future__ import annotations

import argparse

from gpugrad.cli.refusal import RefusalError


def check(args: argparse.Namespace) -> None:
    """Print a table of errors and times."""
    from gpugrad import check as checks

    try:
        right = checks.check(args.only, operations=not args.kernels)
    except (ValueError, RuntimeError) as error:
        raise RefusalError(str(error)) from None
    if not right:
        raise RefusalError("not all results are right", 1)
