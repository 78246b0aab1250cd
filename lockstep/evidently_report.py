"""The shadow comparison as one Evidently page that opens offline: rendered for people, never a stage's output.

Evidently draws random names into its HTML, so the page lives in ``state/``. Its own PSI is not the textbook's: it cuts
both samples together into equally wide bins, so the number follows the sample's size and one outlier hides a shift
(https://github.com/evidentlyai/evidently/issues/1400). Ours is registered as a stat test instead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from lockstep.files import file_hash, read_json, read_parquet, write_text
from lockstep.project import Project
from lockstep.psi import profile, psi
from lockstep.vectors import without_vectors

__all__ = ["PAGE", "drift_report", "psi_decile", "render", "report_pending", "write_report"]

PAGE = Path("state/shadow.html")
_SHOWN = Path("state/shadow.shown")
SAMPLE = 100_000  # rows of each part: some seconds; the numbers in artifacts/shadow are of all rows
_CATEGORIES = (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


def report_pending(project: Project) -> bool:
    """Return whether there is a comparison, ``artifacts/shadow/shadow.json``, that the page does not show."""
    if project.settings.shadow is None:
        return False
    shown = project.root / _SHOWN
    if not shown.is_file() or not (project.root / PAGE).is_file():
        return True
    return shown.read_text(encoding="utf-8") != file_hash(project.root / "artifacts/shadow/shadow.json")


def write_report(project: Project) -> Path:
    """Render the page of the present comparison, unless it is there; return its path below the project."""
    if report_pending(project):
        built = project.root / "artifacts"
        summary, scores = read_json(built / "shadow/shadow.json"), read_parquet(built / "shadow/scores.parquet")
        asked = built / "dataset" / summary["question"]
        keys = [*read_json(asked / "columns.json")["keys"], "cutoff", "part"]
        rows = without_vectors(read_parquet(asked / "training.parquet")).drop("label").join(scores, on=keys)
        drift = pl.read_csv(built / "shadow/drift.csv")
        write_text(render(summary, drift, rows.sort("cutoff", *keys)), project.root / PAGE)
        write_text(file_hash(built / "shadow/shadow.json"), project.root / _SHOWN)
    return PAGE


def psi_decile() -> str:
    """Register our PSI with Evidently, which passes it the values that are not null; return its name there."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def test(reference: Any, current: Any, kind: Any, threshold: float) -> tuple[float, bool]:  # noqa: ARG001
        value = psi(profile(pl.from_pandas(reference)), pl.from_pandas(current))
        return value, value > threshold

    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    register_stattest(StatTest("psi_decile", "PSI (reference deciles)", kinds, default_threshold=0.2), test)
    return "psi_decile"


def render(summary: Mapping[str, Any], drift: pl.DataFrame, rows: pl.DataFrame) -> str:
    """Return the page of a comparison as HTML.

    Parameters
    ----------
    summary, drift
        As `lockstep.shadow.compare` returned them.
    rows
        ``part``, ``label``, both scores as ``champion`` and ``challenger``, and every feature that `drift` names.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    train, test = (_sampled(rows.filter(pl.col("part") == part)) for part in ("train", "test"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Evidently's own dependencies
        from evidently.core.metric_types import render_widgets
        from evidently.legacy.renderers.html_widgets import text_widget

        models = {name: f"{summary[name]['model']}, the {name}" for name in ("champion", "challenger")}
        verdict = text_widget(
            title=f"{models['champion']}, and {models['challenger']}: {summary['decision']}",
            text=f"{summary['reason']}. {summary['otherwise']}",
        )
        html: str = render_widgets([verdict, *_drift(summary, drift, train, test), *_quality(models, test)])
    return html


def _sampled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sample(SAMPLE, seed=0) if frame.height > SAMPLE else frame


def _drift(summary: Mapping[str, Any], drift: pl.DataFrame, train: pl.DataFrame, test: pl.DataFrame) -> list[Any]:
    """Return the widgets of drift: Evidently's, and the table that counts nulls too."""
    from evidently.legacy.renderers.html_widgets import group_widget, table_data, text_widget

    scores = {name: f"score of {summary[name]['model']}" for name in ("champion", "challenger")}
    names = drift["column"].to_list()
    reference, current = (frame.rename(scores).select(names) for frame in (train, test))
    # A column without values would stop the whole report.
    empty = [n for n in names if not (reference[n].count() and current[n].count())]
    found = drift_report(reference.drop(empty), current.drop(empty), summary["drift"]["limit"])
    text = (
        f"PSI by the deciles of the train rows, of values that are not null, in at most {SAMPLE} rows of either part."
        f" Train scores are {summary['drift']['train_scores']}. Drift is reported, it does not decide; Evidently's word"
        " on the dataset asks whether half of the columns drifted."
        + (f" Not drawn, having no values in one part: {', '.join(empty)}." if empty else "")
    )
    return [
        text_widget(title="Drift: reference = train rows, current = test rows", text=text),
        group_widget(title="", widgets=found._widgets),  # two reports on one page: nothing else can be put together
        table_data(
            title="PSI of all rows, with a bin for nulls",
            column_names=drift.columns,
            data=drift.sort("psi", descending=True).rows(),
        ),
    ]


def drift_report(reference: pl.DataFrame, current: pl.DataFrame, limit: float) -> Any:
    """Return Evidently's snapshot of the drift of every column, by our PSI; none may be without values."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    categories = [n for n, kind in reference.schema.items() if kind in _CATEGORIES]
    numbers = [n for n in reference.columns if n not in categories]
    # Without a definition Evidently takes few-valued integers for categories and strings for texts.
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    data = [Dataset.from_pandas(_pandas(frame), definition) for frame in (current, reference)]
    return Report([DataDriftPreset(columns=reference.columns, method=psi_decile(), threshold=limit)]).run(*data)


def _pandas(frame: pl.DataFrame) -> Any:
    """Return `frame` with numbers and instants (microseconds) as floats, categories as strings."""
    instants, categories = pl.col(pl.Date, pl.Datetime), pl.col(*_CATEGORIES)
    plain = frame.with_columns(instants.dt.timestamp("us")).with_columns(categories.cast(pl.String))
    return plain.cast({n: pl.Float64 for n, kind in plain.schema.items() if kind != pl.String}).to_pandas()


def _quality(models: Mapping[str, str], test: pl.DataFrame) -> list[Any]:
    """Return the widgets of both models' quality on the same rows."""
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.legacy.renderers.html_widgets import group_widget, text_widget
    from evidently.metrics import RocAuc
    from evidently.presets import ClassificationQuality

    task = BinaryClassification(target="label", prediction_probas="score", pos_label=1)
    definition = DataDefinition(numerical_columns=["score"], categorical_columns=["label"], classification=[task])
    data = [
        Dataset.from_pandas(test.select("label", score=name).to_pandas(), definition)
        for name in ("challenger", "champion")
    ]
    found = Report([RocAuc(roc_curve=True), ClassificationQuality(pr_curve=True)]).run(*data)
    title = f"Quality on the test rows: reference = {models['champion']}, current = {models['challenger']}"
    return [
        text_widget(title=title, text="Classes are cut at a score of 0.5."),
        group_widget(title="", widgets=found._widgets),
    ]
