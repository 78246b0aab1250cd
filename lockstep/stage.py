"""What every DVC stage does around its function: say errors in one sentence, stay quiet otherwise, show progress."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from lockstep.errors import LockstepError

__all__ = ["QUIET", "progress", "stage"]

T = TypeVar("T")

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""The environment in which no dependency phones home."""


def stage(main: Callable[[], None]) -> int:
    """Run `main` quietly and return the design's exit code: no telemetry, no warnings of dependencies."""
    os.environ.update(QUIET)
    warnings.showwarning = lambda *_, **__: None  # filters do not hold: Feast sets its own at import
    try:
        main()
    except LockstepError as e:
        sys.stdout.flush()
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def progress(items: Iterable[T], name: str, every: float = 2.0) -> Iterator[T]:
    """Yield `items`, printing a line whenever more than `every` seconds have gone by since the last one."""
    total = len(items) if isinstance(items, Sized) else 0
    said = time.monotonic()
    for n, item in enumerate(items):
        if time.monotonic() - said > every:
            print(f"{name}: {n}" + (f" of {total}" if total else ""), flush=True)
            said = time.monotonic()
        yield item
