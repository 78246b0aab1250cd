"""One HTML page that shows a run and opens offline: rendered from JSON and rows, never a stage's output."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lockstep.files import read_json, write_text
from lockstep.ledger import scores
from lockstep.project import project

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "draw", "template", "write_page"]

PLOTS = {
    "roc": ("ROC", "fpr", "tpr", True),
    "precision_recall": ("Precision and recall", "recall", "precision", False),
    "calibration": ("Calibration by decile", "mean_score", "observed", True),
    "by_cutoff": ("AUC by cut-off", "cutoff", "auc", False),
}
"""For each file of rows: its title, its axes, and whether the diagonal is drawn."""


def write_page(root: Path, ledger: Mapping[str, str], path: Path) -> None:
    """Render the page of a run from ``artifacts/`` to `path`."""
    artifacts, questions, settings = root / "artifacts", scores(root), project(root).settings
    models = {question: sorted(set(judged) & {*settings.models}) for question, judged in questions.items()}
    every = sorted(m for some in models.values() for m in some)
    html = template("page.html").render(
        ledger=ledger,
        questions=questions,
        plots={question: [_svg(draw(artifacts, some, name)) for name in PLOTS] for question, some in models.items()},
        slices={m: read_json(artifacts / "evaluate" / m / "slices.json") for m in every},
        cards={m: json.dumps(read_json(artifacts / "evaluate" / m / "card.json"), indent=2) for m in every},
        tables=read_json(artifacts / "validation.json")["tables"],
        views=read_json(artifacts / "features.json")["views"],
        **(_comparison(artifacts / "shadow") if settings.shadow else {}),
        number=lambda value: "-" if value is None else f"{value:.4f}",
    )
    write_text(html, path)


def _comparison(folder: Path) -> dict[str, Any]:
    drift = pl.read_csv(folder / "drift.csv").sort("psi", descending=True, nulls_last=True)
    return {"shadow": read_json(folder / "shadow.json"), "drift": drift.to_dicts()}


def template(name: str) -> Template:
    """Return a page's template, in which every value is escaped."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    env = Environment(loader=PackageLoader("lockstep", "."), autoescape=select_autoescape(default=True))
    return env.get_template(name)


def draw(artifacts: Path, models: list[str], name: str) -> Figure:
    """Draw one of `PLOTS` for some models."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    title, x, y, diagonal = PLOTS[name]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes: Any = figure.subplots()
        if diagonal:
            axes.axline((0, 0), slope=1, color="#bbb", linewidth=1)
        for model in models:
            rows = pl.read_csv(artifacts / "evaluate" / model / f"{name}.csv", try_parse_dates=True)
            axes.plot(rows[x].to_list(), rows[y].to_list(), label=model, marker="." if rows.height < 50 else "")
        axes.set(title=title, xlabel=x.replace("_", " "), ylabel=y.replace("_", " "))
        axes.tick_params(axis="x", rotation=30 if x == "cutoff" else 0)
        axes.legend(frameon=False)
    return figure


def _svg(figure: Figure) -> str:
    """Return a figure as SVG that stands in the page itself, without a time or a random id."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lockstep"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
