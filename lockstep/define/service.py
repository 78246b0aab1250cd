"""Services: what each model reads."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.define.names import check_kinds, unique

__all__ = ["Service"]


@dataclass(frozen=True)
class Service:
    """A named set of features: what a model version reads."""

    name: str
    features: tuple[str, ...] | list[str]
    description: str = ""

    def __post_init__(self) -> None:
        check_kinds(self, f"service {self.name}")
        unique(list(self.features), f"service {self.name}")
