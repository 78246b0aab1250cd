"""Entities: what features are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.define.names import check_kinds
from lockstep.errors import DefinitionError

__all__ = ["Entity", "keyed"]


@dataclass(frozen=True)
class Entity:
    """What features are about, named by its join key."""

    name: str
    key: str
    description: str = ""

    def __post_init__(self) -> None:
        check_kinds(self, f"entity {self.name}")


def keyed(entities: Sequence[Entity], where: str) -> None:
    """Refuse entities that share a key, and a thing that is about none."""
    keys = [e.key for e in entities]
    if not keys or len(set(keys)) < len(keys):
        raise DefinitionError("entities without keys of their own", where=where, found=keys, do="Name each once.")
