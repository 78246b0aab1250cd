"""Errors that tell a user what is wrong and what to do.

- LockstepError
  - GuaranteeError: a guarantee or gate said no (exit code 1)
  - UserError: wrong use or bad data (exit code 2)
    - SettingsError: ``params.yaml`` or ``[tool.lockstep]``
    - DefinitionError: a feature, source, question or contract that cannot mean what it says
    - DataError: files or rows that are not what they should be
  - EnvironmentFault: disk, port, network, a library that is missing (exit code 3)

Every message is one sentence of four parts: what is wrong, where, expected against found, and what to do next.

>>> print(DataError("column renamed", where="products", expected="brand", found="brandd", do="Rename it back."))
column renamed in products: expected brand, found brandd. Rename it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "DataError",
    "DefinitionError",
    "EnvironmentFault",
    "GuaranteeError",
    "LockstepError",
    "SettingsError",
    "UserError",
    "did_you_mean",
]


class LockstepError(Exception):
    """Say what is wrong, where, what was expected and found, and what to do."""

    exit_code = 1

    def __init__(
        self, what: str, *, where: str = "", expected: object = None, found: object = None, do: str = ""
    ) -> None:
        self.what, self.where, self.expected, self.found, self.do = what, where, expected, found, do
        text = what + (f" in {where}" if where else "")
        if expected is not None or found is not None:
            parts = [f"expected {expected}"] if expected is not None else []
            parts += [f"found {found}"] if found is not None else []
            text += ": " + ", ".join(parts)
        text = text if text.endswith((".", "?", "!")) else f"{text}."
        super().__init__(f"{text} {do}" if do else text)


class GuaranteeError(LockstepError):
    """A guarantee or gate said no."""


class UserError(LockstepError):
    """Wrong use or bad data."""

    exit_code = 2


class SettingsError(UserError):
    """A setting that is unknown, missing or of the wrong kind."""


class DefinitionError(UserError):
    """A definition that cannot mean what it says."""


class DataError(UserError):
    """Files or rows that are not what they should be."""


class EnvironmentFault(LockstepError):
    """Something outside the project: disk, port, network, a missing library."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known name, or all of them.

    >>> did_you_mean("tranactions", ["transactions", "products"])
    "Did you mean 'transactions'?"
    >>> did_you_mean("x", ["b", "a"])
    'Known: a, b.'
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
