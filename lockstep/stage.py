"""What every DVC stage does around its function: say errors in one sentence, stay quiet otherwise, show progress."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

from lockstep.errors import LockstepError

__all__ = ["QUIET", "progress", "quiet", "stage", "supervise", "unexpected"]

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
    quiet()
    try:
        main()
    except LockstepError as e:
        sys.stdout.flush()
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        print(f"error: {unexpected(e)}", file=sys.stderr)
        return 1
    return 0


def quiet() -> None:
    """Keep dependencies of this process from phoning home and from warning on the screen."""
    os.environ.update(QUIET)
    warnings.showwarning = lambda *_, **__: None  # filters do not hold: Feast sets its own at import


def unexpected(error: Exception) -> str:
    """Keep the traceback of an error that nobody foresaw in a file; return the sentence that names both."""
    path = Path(tempfile.gettempdir()) / f"lockstep-error-{os.getpid()}.txt"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    first = str(error).splitlines()[0] if str(error) else ""
    return f"unexpected {type(error).__name__}: {first.rstrip('.')}. The traceback is in {path}."


def supervise(process: subprocess.Popen[Any]) -> int:
    """Wait for a process that leads a session of its own; pass Ctrl-C on to it alone and wait for it to tidy up.

    A terminal signals everybody in the foreground at once. Prefect's embedded server would die before the flow that
    still reports to it, which then tries to reach it for minutes.
    """
    try:
        while True:  # in steps: after Polars' first query a blocking wait is no longer interrupted by Ctrl-C
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(1)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        raise


def progress(items: Iterable[T], name: str, total: int = 0, every: float = 2.0) -> Iterator[T]:
    """Yield `items`, printing a line whenever more than `every` seconds have gone by since the last one."""
    total = len(items) if isinstance(items, Sized) else total
    said = time.monotonic()
    for n, item in enumerate(items):
        if time.monotonic() - said > every:
            print(f"{name}: {n}" + (f" of {total}" if total else ""), flush=True)
            said = time.monotonic()
        yield item
