"""Names: which of them are Lockstep's own, and how a user's are held apart."""

from __future__ import annotations

import re

from lockstep.errors import DefinitionError

__all__ = ["FITTED_AT", "RESERVED", "VERSION", "sentence", "unique"]

FITTED_AT = "fitted_at"
"""The column from which a formula of a FittedView reads the instant of the fit: the version of its values."""

RESERVED = {"event_timestamp", "created", "event_day", "cutoff", "part", "label", FITTED_AT}
"""Names of columns that stand beside features."""

VERSION = re.compile(r"_v[0-9]+$")
"""The end of a name that a version above 1 gets, and nobody else may write."""


def unique(names: list[str], where: str) -> None:
    """Refuse names that are Lockstep's own, that stand twice, or that no column can have everywhere."""
    for name in names:
        if name in RESERVED:
            raise DefinitionError(f"{name!r} is a name of Lockstep's own", where=where, do="Choose another.")
        if names.count(name) > 1:
            raise DefinitionError(f"feature {name!r} is defined twice", where=where, do="Rename one of them.")


def sentence(text: str) -> str:
    """Return what a user wrote as a sentence: ``use trips v2`` -> ``Use trips v2.``."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
