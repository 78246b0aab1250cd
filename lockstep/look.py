"""What was known, built and judged, as Polars frames: for notebooks.

Every function works in the project around the working folder, so a notebook may stand anywhere inside it.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

from lockstep.clock import parse_day
from lockstep.contract import load_contracts
from lockstep.errors import UserError, did_you_mean
from lockstep.files import read_json, read_parquet
from lockstep.ledger import scores as judged
from lockstep.project import project
from lockstep.tables import read_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["card", "comparison", "drift", "features", "known", "plot", "scores"]


def known(table: str, day: str | date) -> pl.DataFrame:
    """Return the rows of a raw table as they were known at the start of `day`: what had landed before, as it stood."""
    p = project()
    contracts = load_contracts(p.folder("contracts"))
    _one_of("table", table, contracts)
    tables = read_tables(p.root / "artifacts/clean", contracts, p.settings.clock, (table,))
    return tables[table].known(_day(day))


def features(view: str, day: str | date) -> pl.DataFrame:
    """Return a view's snapshot of `day`: one row an entity ever seen, every feature as it was known at its start."""
    folder = project().root / "artifacts/features"
    views = {v.parent.name + f"_{v.name}".removesuffix("_v1"): v for v in folder.glob("*/v*")}
    _one_of("view", view, views)
    days = {file.stem: file for file in views[view].glob("*.parquet")}
    _one_of("day", str(_day(day)), days)
    return read_parquet(days[str(_day(day))])


def card(model: str) -> dict[str, Any]:
    """Return a model's card: what shaped it, by content hash, and how it did."""
    root = project().root
    _one_of("model", model, project().settings.models)
    return dict(read_json(root / "artifacts/evaluate" / model / "card.json"))


def scores() -> pl.DataFrame:
    """Return the metrics of every model and baseline on the test part, question by question, best AUC first."""
    found = judged(project().root).items()
    rows = [{"question": q, "model": name, **metrics} for q, one in found for name, metrics in one.items()]
    return pl.DataFrame(rows, infer_schema_length=None)


def comparison() -> dict[str, Any]:
    """Return what shadow mode found: decision, reason, gain with its interval, agreement and drift."""
    return dict(read_json(project().root / "artifacts/shadow/shadow.json"))


def drift() -> pl.DataFrame:
    """Return the PSI of each feature and score from train rows to test rows, the largest first."""
    return pl.read_csv(project().root / "artifacts/shadow/drift.csv").sort("psi", descending=True, nulls_last=True)


def plot(name: str, question: str) -> Figure:
    """Return a plot of a question's models: ``roc``, ``precision_recall``, ``calibration`` or ``by_cutoff``."""
    from lockstep.page import PLOTS, draw

    p = project()
    _one_of("plot", name, PLOTS)
    _one_of("question", question, p.settings.questions)
    models = [m for m, about in sorted(p.settings.models.items()) if about.question == question]
    return draw(p.root / "artifacts", models, name)


def _day(day: str | date) -> date:
    try:
        return parse_day(day) if isinstance(day, str) else day
    except ValueError as e:
        raise UserError("bad day", found=e) from None


def _one_of(kind: str, name: str, names: Any) -> None:
    if name not in names:
        raise UserError(f"no {kind} {name!r}", where="this project", do=did_you_mean(name, names))
