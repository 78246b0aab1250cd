"""The training set: the population of each cut-off with the features that were known. The DVC stage `dataset`.

Each question has a set of its own, whose features are joined once, through Feast, for all of its services together.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from lockstep.catalogue import Catalogue
from lockstep.clock import INSTANT
from lockstep.closure import closure_hash
from lockstep.contract import load_contracts
from lockstep.day_cache import HASHES, Hashes
from lockstep.define import OnDemandView, Question
from lockstep.echo import require_no_echo
from lockstep.errors import DataError, DefinitionError, GuaranteeError, SettingsError, UserError, did_you_mean
from lockstep.events import Events
from lockstep.feast_objects import feature_store
from lockstep.files import file_hash, tree_hash, write_json, write_parquet
from lockstep.fingerprint import kept_events
from lockstep.landings import read_landings, sealed_days, sources
from lockstep.population import AT, CUTOFF, LABEL, PART, Part, ask, parts
from lockstep.project import Project, project
from lockstep.questions import questions, require_services
from lockstep.stage import stage
from lockstep.tables import read_tables

__all__ = ["as_known", "join_features", "joined", "keep_known", "with_request"]


def join_features(p: Project, catalogue: Catalogue, rows: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """Join the features `wanted` to `rows` as `joined` does, and do what views say of rows that are not there.

    Raises
    ------
    DefinitionError, GuaranteeError
        As `joined`.
    DataError
        A row that a view refuses to do without, a value that breaks its feature's contract, or a null where a request
        carries a value.
    """
    _check_nulls(rows, catalogue.demands(wanted))
    keys = [k for k in catalogue.key_types if k in rows.columns]
    frame = catalogue.settle(joined(p, catalogue, rows, wanted), keys, "the training set")
    return frame.select(*rows.columns, *wanted)


def _check_nulls(rows: pl.DataFrame, demands: Sequence[OnDemandView]) -> None:
    """Refuse nulls in what a request carries: a server does not answer them."""
    request = [name for name in dict.fromkeys(n for view in demands for n in view.request) if name in rows.columns]
    for name in request:
        nulls = rows.filter(pl.col(name).is_null())
        if nulls.height:
            who = {c: v for c, v in nulls.row(0, named=True).items() if c not in (PART, LABEL, *request)}
            raise DataError(
                f"null where a request carries {name!r}", where="the population", expected="a value, as of a server",
                found=f"{nulls.height} of {rows.height} rows, first {who}",
                do="Fill it in the question's population, or leave these rows out.",
            )  # fmt: skip


def joined(p: Project, catalogue: Catalogue, rows: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """Join the features `wanted` to `rows` through Feast, as they were known at each ``event_timestamp``.

    The flags of their views come with them: `Catalogue.settle` reads those.

    Raises
    ------
    DefinitionError
        A feature is made of what a request carries and no column of `rows` holds.
    GuaranteeError
        Feast gave other rows back than it was asked for, or in another order.
    """
    asked = with_request(rows, catalogue.demands(wanted))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        store = feature_store(p, str(Path(folder) / "registry.db"))
        names = list(dict.fromkeys([*wanted, *catalogue.flags(wanted)]))
        job = store.get_historical_features(entity_df=asked, features=catalogue.refs(names))
        given = pl.DataFrame(job.to_arrow())
    frame = given.select(*rows.columns, *names).cast({n: catalogue.types[n] for n in names})
    if not frame.select(rows.columns).equals(rows):
        raise GuaranteeError(
            "the join lost, added or moved rows", where="dataset", expected=f"{rows.height} rows in order",
            found=f"{frame.height} rows", do="This is a fault of the offline store: see features/feature_store.yaml.",
        )  # fmt: skip
    return frame


def with_request(rows: pl.DataFrame, demands: Sequence[OnDemandView]) -> pl.DataFrame:
    """Add the instant of each row where `demands` take it from a request; all else that they take must be there.

    Raises
    ------
    DefinitionError
        A column that is missing, or of another type.
    """
    request = {name: kind for view in demands for name, kind in view.request.items()}
    added = rows.with_columns(pl.col(AT).alias(n) for n, kind in request.items() if kind == INSTANT)
    for name, kind in request.items():
        if added.schema.get(name) != kind:
            raise DefinitionError(
                f"a training set that does not know what a request carries as {name!r}", where="the population",
                expected=str(kind), found=str(added.schema.get(name)),
                do="Let the question's population give this column.",
            )  # fmt: skip
    return added


def as_known(p: Project, day: date, name: str) -> pl.DataFrame:
    """Return a question's training set as it would have been built on `day`: rows whose labels had closed by then.

    It depends on the definitions and on what landed before `day` alone, so it is the same whenever it is asked for.
    Columns and order are those of ``training.parquet``; every row's part is ``train``.

    Raises
    ------
    UserError
        The days before `day` are not sealed, or no cut-off's label had closed by then.
    """
    question, events, last = _asked(p, name)
    settings = p.settings.questions[name].dataset
    cutoffs = settings.cutoffs.days()
    closed = [d for d in cutoffs if d + timedelta(days=question.horizon_days) <= day]
    if day > last or not closed:
        first = cutoffs[0] + timedelta(days=question.horizon_days)
        raise UserError("no training set as known on that day", expected=f"{first} .. {last}", found=day)
    part = Part("train", closed, day, len(cutoffs) - len(closed))
    require_services(catalogue := Catalogue(p), question)
    rows = ask(question, events, part, p.settings.clock)
    return join_features(p, catalogue, rows, catalogue.read_by(settings.services))


def keep_known(p: Project, day: date, name: str, to: Path) -> Path:
    """Write what `as_known` returns below `to`, with a ``dataset.json`` beside it; return the folder.

    It is named by question and day: sets of others stay as they are.
    """
    out, frame = to / name / str(day), as_known(p, day, name)
    write_parquet(frame, out / "training.parquet")
    before = [line for line in read_landings(p.root / "landings.csv") if line.landing_day < day]
    about = {"question": name, "known": str(day), **_total({"train": frame})}
    write_json({**about, "sources": sources(before), "hashes": _hashes(p, out)}, out / "dataset.json")
    return out


def build(p: Project, name: str) -> None:
    """Build a question's ``training.parquet``, what it holds for whom as ``columns.json``, and ``dataset.json``.

    Training reads the first two alone: code that changes without changing them is no reason to train again.
    """
    out = p.root / "artifacts/dataset" / name
    question, events, last = _asked(p, name)
    settings = p.settings.questions[name].dataset
    split = parts(settings, question.horizon_days, last)
    require_services(catalogue := Catalogue(p), question)
    asked = {part.name: ask(question, events, part, p.settings.clock) for part in split if part.cutoffs}
    rows = pl.concat([asked["train"], asked["test"]]).sort(CUTOFF, *question.row)
    features = catalogue.read_by(settings.services)
    frame = join_features(p, catalogue, rows, features)
    if settings.echo is not None:
        require_no_echo(frame.filter(pl.col(PART) == "train"), features, settings.echo, f"train of question {name}")
    write_parquet(frame, out / "training.parquet")
    services = {s.name: s.features for s in catalogue.services if s.name in settings.services}
    write_json(
        {
            "keys": [*question.row],
            "horizon_days": question.horizon_days,
            "services": {s: {f: str(catalogue.types[f]) for f in names} for s, names in services.items()},
        },
        out / "columns.json",
    )
    write_json(
        {
            "question": name,
            "parts": {part.name: _count(part, asked.get(part.name)) for part in split},
            "all": _total(asked),
            "sources": sources(read_landings(p.root / "landings.csv")),
            "hashes": _hashes(p, out),
        },
        out / "dataset.json",
    )
    print(f"{name}: {frame.height} rows x {len(features)} features")


def _hashes(p: Project, out: Path) -> dict[str, str]:
    return {
        "code": closure_hash(p, "lockstep.dataset"),
        "clean": tree_hash(p.root / "artifacts/clean"),
        "features": tree_hash(p.root / "artifacts/features"),
        "dataset": file_hash(out / "training.parquet"),
    }


def _asked(p: Project, name: str) -> tuple[Question, Events, date]:
    """Return a question of the project, the events it is asked of, and the last day whose knowledge is whole.

    Raises
    ------
    SettingsError
        Nobody defined the question.
    """
    contracts = load_contracts(p.folder("contracts"))
    asked = questions(p)
    if name not in asked:
        raise SettingsError(f"no question {name!r}", where="questions of params.yaml", do=did_you_mean(name, asked))
    question = asked[name]
    first, last = sealed_days(p.root, contracts)
    tables = read_tables(p.root / "artifacts/clean", contracts, p.settings.clock, question.source.tables)
    return question, kept_events(p, question.source, tables, first, last, hashes=Hashes(p.root / HASHES)), last


def _count(part: Part, rows: pl.DataFrame | None) -> dict[str, object]:
    base = None if rows is None else round(float(rows[LABEL].mean()), 6)  # type: ignore[arg-type]  # never null: a label is 0 or 1
    return {
        "cutoffs": len(part.cutoffs),
        "left_out": part.left_out,
        "known": str(part.known),
        "rows": 0 if rows is None else rows.height,
        "base_rate": base,
    }


def _total(asked: Mapping[str, pl.DataFrame]) -> dict[str, object]:
    labels = pl.concat([f[LABEL] for f in asked.values()])
    return {"rows": labels.len(), "base_rate": round(float(labels.mean()), 6)}  # type: ignore[arg-type]  # as above


def main() -> None:
    """Build the training set of the question that the command line names."""
    build(project(), sys.argv[1])


if __name__ == "__main__":
    sys.exit(stage(main))
