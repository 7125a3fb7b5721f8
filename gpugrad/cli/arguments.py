"""What the options of the command line take: functions from text to a value, with an error that says what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def layers(text: str) -> list[int]:
    """Numbers of hidden units, separated by commas."""
    parts = [p.strip() for p in text.split(",")] if text.strip() else []
    if not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive integers like 128,64")
    return [int(p) for p in parts]


def positive(kind: type) -> Callable[[str], Any]:
    """A number above 0."""

    def parse(text: str) -> Any:
        number = _number(kind, text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
        return number

    return parse


def not_negative(kind: type) -> Callable[[str], Any]:
    """A number from 0."""

    def parse(text: str) -> Any:
        number = _number(kind, text)
        if not 0 <= number < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is {'negative' if number < 0 else 'not a finite number'}")
        return number

    return parse


def fraction(text: str) -> float:
    """A number in [0, 1)."""
    number = _number(float, text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return number


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from None
