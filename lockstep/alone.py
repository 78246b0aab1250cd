"""One at a time: what two processes must not do at once in one project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lockstep.errors import EnvironmentFault

__all__ = ["alone"]


@contextmanager
def alone(root: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `doing` in ``state/``; refuse at once or `wait`. A process that dies lets go of it.

    Raises
    ------
    EnvironmentFault
        Another process holds it.
    """
    path = root / "state" / f"{doing}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise EnvironmentFault(
                f"another process is at it: {doing}", where=str(root),
                do="Wait for it, then run the same command again.",
            ) from None  # fmt: skip
        print(f"another process is at it: {doing}. Waiting for it ({path})", flush=True)
        lock.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        lock.release()
