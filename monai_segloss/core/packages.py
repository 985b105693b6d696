"""Packages that some losses need and the extras do bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

_ASKED: ContextVar[bool] = ContextVar("asked", default=True)


def require(package: str, extra: str, what: str) -> None:
    """Refuse to go on without a package.

    Args:
        package: as it is imported, and as it is called.
        extra: of this distribution, which brings it.
        what: needs it.

    Raises:
        ImportError: it is not installed.
    """
    if _ASKED.get() and find_spec(package) is None:
        raise ImportError(f"{what} needs {package}, which is not installed: pip install 'monai-segloss[{extra}]'")


@contextmanager
def described() -> Iterator[None]:
    """Within, a loss may be made without its packages, to be described and not to be called."""
    token = _ASKED.set(False)
    try:
        yield
    finally:
        _ASKED.reset(token)
