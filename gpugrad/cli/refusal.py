"""Why a command is not carried out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RefusalError(Exception):
    """Why a command cannot be carried out, in one line, and the exit code: 2 for input that cannot be used, 1 for what failed on the way."""

    def __init__(self, message: object, code: int = 2) -> None:
        super().__init__(" ".join(str(message).split()))
        self.code = code


@contextmanager
def refusing(*kinds: type[Exception], before: str = "") -> Iterator[None]:
    """Make refusals of exceptions whose message says it all."""
    try:
        yield
    except kinds as error:
        raise RefusalError(f"{before}{error}") from None
