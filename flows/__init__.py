"""When it runs: Prefect flows, importable from a notebook, a shell, a schedule."""

from contextlib import suppress

from lockstep.errors import SettingsError
from lockstep.prefect_server import configure
from lockstep.project import project

with suppress(SettingsError):  # outside a project a flow says so itself, when it is called
    configure(project().root)
