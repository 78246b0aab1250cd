"""Prefect's server and worker as processes: asked for, started, stopped without a trace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

from lockstep.errors import EnvironmentFault, LockstepError
from lockstep.stage import QUIET

__all__ = ["Family", "configure", "end", "failure", "free_port", "require_server"]

MARK = "LOCKSTEP_UP"
"""The environment variable that all processes of one try share: its folder."""

STARTUP = 300.0
"""Seconds that a server may take to answer; it needs 7 to 15 on two cores."""


def configure(root: Path) -> None:
    """Set Prefect's environment, before anything imports it: quiet, its home in ``state/``, time enough to start.

    A server or profile that the user configured is theirs to use.
    """
    own = "PREFECT_API_URL" in os.environ or (Path.home() / ".prefect/profiles.toml").exists()
    defaults = {
        **({} if own else {"PREFECT_HOME": str(root / "state/prefect")}),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the flows say what matters themselves
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # the default, 20 s, fails on a slow machine
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        **QUIET,
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def require_server() -> None:
    """Raise EnvironmentFault when a Prefect server is configured and does not answer; without one Prefect embeds it."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return
    if fault := get_client(sync_client=True).api_healthcheck():
        raise EnvironmentFault(
            "the Prefect server does not answer", where=f"PREFECT_API_URL {url}", found=fault,
            do="Start it with `prefect server start`, or unset PREFECT_API_URL: an embedded server then does.",
        )  # fmt: skip


def free_port(port: int | None = None) -> int:
    """Return `port` when nobody listens there, any free one for None; raise EnvironmentFault when it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as e:
            raise EnvironmentFault(
                f"port {port} cannot be had", where="--port", found=e.strerror,
                do="End what listens there, or leave --port out for a free one.",
            ) from e  # fmt: skip
        return int(probe.getsockname()[1])


class Family:
    """A Prefect server, its worker and all that they start, known by a mark in their environment.

    The mark outlives any parent: what a killed run left is found and ended by the next one.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.home, self.port = folder, folder / "state/prefect", port
        self.address = f"http://127.0.0.1:{port}"
        self.api = f"{self.address}/api"
        self.env = {
            **{
                k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")
            },  # a server of the user's is not ours
            **QUIET,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api,
            "PYTHONPATH": str(folder),  # the copy's own modules, whatever is installed
            MARK: str(folder),
        }
        self.running: dict[str, subprocess.Popen[Any]] = {}

    def start(self, name: str, *words: str) -> int:
        """Start ``python -m WORDS`` in a session of its own, out of reach of a terminal's Ctrl-C; return its id."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("a", encoding="utf-8") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self.running[name].pid

    def call(self, name: str, *words: str) -> None:
        """Run ``python -m WORDS`` to its end; raise its own sentence with its own code when it fails."""
        self.start(name, *words)
        process = self.running.pop(name)
        while process.poll() is None:
            self.check()
            time.sleep(0.1)
        if process.returncode:
            raise failure(" ".join(words), self.log(name), process.returncode)

    def check(self) -> None:
        """Raise EnvironmentFault when a process that should go on has ended."""
        for name, process in self.running.items():
            if process.poll() is not None:
                code = process.returncode
                raise EnvironmentFault(f"the {name} has ended", found=f"exit code {code}", do=f"See {self.log(name)}.")

    def wait_for_server(self) -> None:
        """Wait until the server answers; raise EnvironmentFault when it ends or takes too long."""
        import httpx

        deadline = time.monotonic() + STARTUP
        while time.monotonic() < deadline:
            self.check()
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.api}/health", trust_env=False).raise_for_status()
                return
            time.sleep(0.2)
        raise EnvironmentFault(f"no answer of the server within {STARTUP:.0f} s", do=f"See {self.log('server')}.")

    def log(self, name: str) -> Path:
        """Return the path of the log of a process."""
        return self.home / f"{name}.log"


def end(folder: Path, last: subprocess.Popen[Any] | None = None) -> None:
    """End every process of the family in `folder`, the flows and the worker before the server to which they report."""
    import psutil

    for spared in (last.pid if last else None, None):
        family = [p for p in _family(folder) if p.pid != spared]
        for how in ("terminate", "kill"):
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    getattr(process, how)()
            family = psutil.wait_procs(family, timeout=20)[1]


def _family(folder: Path) -> list[psutil.Process]:
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # somebody else's, or gone
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def failure(what: str, log: Path, code: int) -> LockstepError:
    """Return the sentence with which a process ended in its log and its exit code, or a fault that names both."""
    said = log.read_text(encoding="utf-8").splitlines()
    sentence = next((line for line in reversed(said) if line.startswith("error: ")), None)
    if sentence is None:
        found = next((line.strip() for line in reversed(said) if line.strip()), f"exit code {code}")
        return EnvironmentFault(f"{what} failed", found=found, do=f"See {log}.")
    error = LockstepError(sentence.removeprefix("error: ").removesuffix("."))
    error.exit_code = code
    return error
