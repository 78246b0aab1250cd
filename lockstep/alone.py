"""One at a time: what two processes must not do at once in one project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lockstep.errors import EnvironmentFault

__all__ = ["alone"]


@contextmanager
def alone(root: Path, doing: str) -> Iterator[None]:
    """Hold the lock of `doing` in ``state/``, or refuse at once; a process that dies lets go of it.

    Raises
    ------
    EnvironmentFault
        Another process holds it.
    """
    path = root / "state" / f"{doing}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise EnvironmentFault(
            f"another process is at it: {doing}", where=str(root), do="Wait for it, then run the same command again."
        ) from None
