"""Proofs that run on a project's own definitions and on the real data, not on examples of them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lockstep.contract import load_contracts
from lockstep.day_cache import DayCache, Hashes, day_keys
from lockstep.define import View
from lockstep.errors import GuaranteeError, UserError, did_you_mean
from lockstep.events import Events
from lockstep.files import file_hash
from lockstep.landings import sealed_days
from lockstep.leakage import leakage
from lockstep.parity import prove_parity
from lockstep.project import Project
from lockstep.snapshots import build
from lockstep.stage import progress
from lockstep.tables import read_tables

__all__ = ["Proof", "backfill", "prove"]


class Proof(NamedTuple):
    """What a proof compared; one that fails raises GuaranteeError instead."""

    name: str
    said: str


def prove(p: Project, name: str, days: int) -> Iterator[Proof]:
    """Run the proof `name`, or ``all`` of them; yield each that holds. Leakage is looked for on `days` days."""
    proofs: dict[str, Callable[[], str]] = {
        "leakage": lambda: leakage(p, days),
        "backfill": lambda: backfill(p),
        "parity": lambda: prove_parity(p).text(),
    }
    if name not in (*proofs, "all"):
        raise UserError(f"no proof {name!r}", do=did_you_mean(name, (*proofs, "all")))
    for run in proofs if name == "all" else [name]:
        yield Proof(run, proofs[run]())


def backfill(p: Project, pieces: int = 6) -> str:
    """Prove that snapshots computed anew have the published bytes, whatever was computed before; say on what.

    The days are dealt out at random to `pieces`, which are computed one after another from an empty cache. Each is cut
    short once and begun again, with one of the files that it left damaged.

    Raises
    ------
    GuaranteeError
        A snapshot with other bytes: named.
    """
    zone, contracts = p.settings.clock, load_contracts(p.folder("contracts"))
    first, last = sealed_days(p.root, contracts)
    chance, count = random.Random(0), 0  # noqa: S311 - any order will do
    for view in [v for v in p.objects("views", View) if not v.dropped]:
        tables = read_tables(p.root / "artifacts/clean", contracts, zone, view.source.tables)
        events = Events(view.source, tables, first, last)
        with tempfile.TemporaryDirectory() as folder:
            out, hashes = Path(folder) / "out", Hashes(Path(folder) / "hashes.json")
            keys = day_keys("backfill", {name: t.files for name, t in tables.items()}, hashes, first, last)
            piece_of = {day: chance.randrange(pieces) for day in keys}
            for piece in progress(chance.sample(range(pieces), pieces), f"backfill {view.name}"):
                whole = {day: key for day, key in keys.items() if piece_of[day] == piece}
                for some in (dict(list(whole.items())[: len(whole) // 2]), whole):
                    _damage_one(Path(folder) / "days")
                    build(view, events, some, out, DayCache(Path(folder) / "days", hashes))
            for day in keys:
                _same_bytes(out / f"{day}.parquet", p.root / "artifacts/features" / view.folder / f"{day}.parquet")
        count += len(keys)
    return f"{count} snapshots anew in {pieces} pieces, each cut short once: the published bytes"


def _damage_one(folder: Path) -> None:
    """Cut one file short, as a crash does."""
    for path in sorted(folder.glob("*.parquet"))[:1]:
        path.write_bytes(path.read_bytes()[:100])


def _same_bytes(anew: Path, published: Path) -> None:
    if not published.is_file() or file_hash(anew) != file_hash(published):
        raise GuaranteeError(
            "a snapshot computed anew has other bytes than the published one", where=str(published),
            do="Something besides data and definitions shapes it: remove state/days and state/events and run again.",
        )  # fmt: skip
