"""Plant faults in the project's own rows and see which guard stops each: the guards are only as good as this says.

A fault is planted in the last weeks of what has landed, in a temporary folder: it goes through the same door, rules and
stages as real rows, and the project is not touched.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import polars as pl

from lockstep.contract import VERSION_RULES, Contract, load_contracts
from lockstep.echo import require_no_echo
from lockstep.errors import DataError, GuaranteeError, LockstepError, UserError, did_you_mean
from lockstep.faults import FAULTS, Fault, Sample
from lockstep.files import read_json, read_parquet
from lockstep.land import land
from lockstep.landings import EMPTY, check_sealed, read_landings
from lockstep.population import PART
from lockstep.project import Project
from lockstep.validate import validate
from lockstep.vectors import width

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lockstep.define import Feature
    from lockstep.model_file import Fitted

__all__ = ["Outcome", "faults", "plant", "sample", "table"]

Report = Mapping[str, Any]


class Outcome(NamedTuple):
    """What became of a fault: the guard that is there for it, by what name it stopped the fault ("" for not), how."""

    fault: str
    about: str
    guard: str
    stopped: str
    said: str

    @property
    def follows(self) -> str:
        """Return what followed: refused, quarantined, dropped or flagged; nothing where the fault was missed."""
        if not self.stopped or self.said.startswith("refused"):
            return "refused" if self.stopped else "nothing"
        return self.said.split(f"{self.stopped} ", 1)[1].split()[0]


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the outcomes as a Markdown table, without those that were skipped."""
    rows = [f"| `{o.fault}` | {o.about} | {o.guard} | {o.follows} |" for o in outcomes if o.guard]
    return "\n".join(["| fault | what happens | guard | what follows |", "|---|---|---|---|", *rows])


def plant(p: Project, names: list[str], weeks: int = 13) -> Iterator[Outcome]:
    """Plant faults, all of them where none is named, in the last `weeks` of what landed; yield what became of each.

    Raises
    ------
    UserError
        A fault that nobody knows.
    GuaranteeError
        The honest rows do not pass: nothing can be told of faults.
    """
    known = faults()
    for name in names:
        if name not in known:
            raise UserError(f"no fault {name!r}", do=did_you_mean(name, known))
    honest = sample(p, weeks)
    with tempfile.TemporaryDirectory() as folder:
        try:
            before = _through_the_door(Path(folder) / "honest", honest, p.folder("contracts"))
        except LockstepError as e:
            raise GuaranteeError("the honest rows do not pass", where="lockstep plant", found=str(e)) from e
        for name in names or known:
            try:
                yield known[name](p, honest, before, Path(folder) / name)
            except UserError as e:  # nothing here that this fault could break
                yield Outcome(name, "", "", "", f"not planted: {e}")


def sample(p: Project, weeks: int) -> Sample:
    """Return the raw rows of the last `weeks` of landing days; what landed before and has no days of its own, at first.

    Raises
    ------
    DataError
        Fewer days have landed.
    """
    landings = [x for x in read_landings(p.root / "landings.csv") if x.byte_hash != EMPTY]
    newest = {x.table: x.contract_version for x in sorted(landings, key=lambda x: x.contract_version)}
    contracts = {t: c.at(newest[t]) if t in newest else c for t, c in load_contracts(p.folder("contracts")).items()}
    last = max((x.landing_day for x in landings), default=None)
    first = last - timedelta(days=7 * weeks - 1) if last else None
    if last is None or first is None or first < min(x.landing_day for x in landings):
        raise DataError(f"fewer than {weeks} weeks have landed", where="landings.csv", do="Give --weeks, or land more.")
    for t, c in contracts.items():
        since = [x.landing_day for x in landings if x.table == t and x.contract_version == c.version]
        if c.calendar == "daily" and since and min(since) > first:
            first = min(since)
            print(f"plant: from {first} on, where version {c.version} of {t} begins", file=sys.stderr, flush=True)
    tables = {}
    for table, contract in contracts.items():
        irregular = contract.calendar == "irregular"
        wanted = [x for x in landings if x.table == table and (irregular or x.landing_day >= first)]
        parts = [(read_parquet(p.root / "data" / x.path), x.landing_day) for x in wanted]
        tables[table] = _since(first, parts, contract)
    return Sample(tables, contracts, p.settings.clock, last)


def _since(first: date, parts: list[tuple[pl.DataFrame, date]], contract: Contract) -> pl.DataFrame:
    """Return partitions as rows of one version: of what landed before `first`, the last version of each key, on it.

    A column that an older version lacks holds the first value that came, where a value is required.
    """
    schema = {**contract.schema(), "_landing_day": pl.Date()}
    frames = [rows.with_columns(pl.lit(day).alias("_landing_day")) for rows, day in parts]
    rows = pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal").select(*schema)
    required = {r.columns[0] for r in contract.rules if r.kind == "not_null" and r.then in ("fail", "quarantine")}
    lacks = {c for frame in frames for c in required if c not in frame.columns}
    rows = rows.with_columns(pl.col(c).fill_null(pl.col(c).drop_nulls().first()) for c in sorted(lacks))
    before = pl.col("_landing_day") < first
    known = rows.filter(before).unique(list(contract.key), keep="last", maintain_order=True)
    return pl.concat([known.with_columns(pl.lit(first).alias("_landing_day")), rows.filter(~before)])


def _land(root: Path, s: Sample) -> None:
    first = min(rows["_landing_day"].min() for rows in s.tables.values() if rows.height)  # type: ignore[type-var]  # days
    root.mkdir(parents=True, exist_ok=True)
    land(root, s.contracts, s.tables.__getitem__, first, s.day)  # type: ignore[arg-type]  # as above


def _through_the_door(root: Path, s: Sample, profiles: Path) -> Report:
    """Land and validate a sample in an empty folder; return what ``validation.json`` says."""
    with contextlib.redirect_stdout(io.StringIO()):  # their progress is nobody's here
        _land(root, s)
        landings = read_landings(root / "landings.csv")
        return validate(
            root / "data", landings, s.contracts, s.zone, root / "artifacts", profiles=profiles, expectations=False
        )


def _of_rows(fault: Fault) -> _Plant:
    def plant(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:
        judged = [s for t in before["tables"].values() for s in t["statistics"].values() if s["kind"] == fault.guard]
        if judged and not any(s["held"] for s in judged):
            raise UserError("a statistic that the honest rows do not hold", where=f"kind {fault.guard}")
        try:
            spoilt = fault.plant(honest)
        except pl.exceptions.PolarsError as e:
            raise UserError("the types do not allow it", where=fault.name, found=str(e).splitlines()[0]) from e
        try:
            seen = _seen(honest.contracts, before, _through_the_door(root, spoilt, p.folder("contracts")))
        except LockstepError as e:
            stopped = e.what if fault.guard in _refusing(e, honest.contracts) else ""
            return Outcome(fault.name, fault.about, fault.guard, stopped, f"refused: {e}")
        stopped = next((name for name, (kinds, _) in seen.items() if fault.guard in kinds), "")
        said = ", ".join(f"{name} {what}" for name, (_, what) in seen.items())
        return Outcome(fault.name, fault.about, fault.guard, stopped, said or "nobody noticed")

    return plant


def _refusing(error: LockstepError, contracts: Mapping[str, Contract]) -> set[str]:
    """Return which guards an error is of: kinds of the rules or statistics it names, or what it says as a whole."""
    found = str(error.found or "")
    if error.what.startswith("a landing day"):
        return {"health"}
    if error.what.startswith("an unusual number of rows"):
        return {"volume"}
    if error.what.startswith("statistics have moved"):
        return set(re.findall(r"(?:^|; )\S+: (\w+) of ", found))
    if error.what == "the record SLO is broken":  # "99.1 %, by rule 12, other 3"
        names = {part.rpartition(" ")[0] for part in found.partition(", by ")[2].split(", ")}
    elif rule := re.search(r"break the rule '([^']+)'$", error.what):
        names = {rule[1]}
    else:
        return {error.what}
    tables = set(re.findall(r"\w+", error.where))
    rules = [r for c in contracts.values() if c.table in tables for r in c.rules if r.name in names]
    return {kind for r in rules for kind in (r.kind, r.then)} | (names & {*VERSION_RULES})


def _seen(contracts: Mapping[str, Contract], before: Report, after: Report) -> dict[str, tuple[set[str], str]]:
    """Return what the guards noticed that they had not noticed of the honest rows: by name, the kinds and the deed."""
    found: dict[str, tuple[set[str], str]] = {}
    for table, counts in after["tables"].items():
        honest = before["tables"][table]
        kinds = {r.name: r.kind for r in contracts[table].rules}
        for rule, now in counts["rules"].items():
            if (more := now["broken"] - honest["rules"][rule]["broken"]) > 0:
                done = {"quarantine": "quarantined", "flag": "flagged", "cap": "capped", "impute": "imputed"}[
                    now["then"]
                ]
                found[f"{table} {rule}"] = ({kinds.get(rule, rule), now["then"]}, f"{done} {more} rows")
        if (more := counts["duplicates"] - honest["duplicates"]) > 0:
            found[f"{table} duplicates"] = ({"duplicates"}, f"dropped {more} rows")
        for name, now in counts["statistics"].items():
            if honest["statistics"][name]["held"] and not now["held"]:
                found[f"{table} {name}"] = ({now["kind"]}, "flagged the last landing days")
        for one in counts["health"]:
            if one not in honest["health"]:
                found[f"{table} health"] = ({"health"}, f"flagged {one['landing_day']} as {one['finding']}")
        if days := _unusual(counts) - _unusual(honest):
            found[f"{table} volume"] = ({"volume"}, f"flagged {', '.join(sorted(days))}")
    return found


_DONE = {"quarantine": "quarantined", "flag": "flagged", "cap": "capped", "impute": "imputed"}


def _unusual(counts: Report) -> set[str]:
    return set(counts["volume"]["unusual"]) if counts["volume"] else set()


def _attempt(name: str, about: str, guard: str, do: Callable[[], object]) -> Outcome:
    """Do what a guard should refuse, in words that are the guard's own."""
    try:
        do()
    except LockstepError as e:
        stopped = e.what if re.search(rf"\b{re.escape(guard)}\b", e.what) else ""
        return Outcome(name, about, guard, stopped, f"refused: {e}")
    return Outcome(name, about, guard, "", "nobody noticed")


def _damaged(name: str, about: str, damage: Callable[[Path], None]) -> _Plant:
    """Return a fault of a sealed file: the data is compared with its seals before anything reads it."""

    def plant(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
        _land(root, honest)
        damage(max((root / "data" / honest.main.table).glob("*.parquet")))
        return _attempt(name, about, "a sealed file was changed", lambda: check_sealed(root))

    return plant


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _turn(file: Path) -> None:
    held = file.read_bytes()
    file.write_bytes(held[:50] + bytes([held[50] ^ 1]) + held[51:])


def _label_echo(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
    question = p.settings.models[p.settings.serve.model].question
    rows = _training(p, question).filter(pl.col(PART) == "train")
    label = pl.col("label")
    echo = pl.when(pl.int_range(pl.len()) % 200 == 0).then(1 - label).otherwise(label).alias("status")
    return _attempt(
        "label-echo", "A feature is written back from the answer, with one row in two hundred wrong", "knows the label",
        lambda: require_no_echo(
            rows.with_columns(echo), ["status"], p.settings.questions[question].dataset.echo or 1, question
        ),
    )  # fmt: skip


def _of_features(name: str, about: str, guard: str, has: Callable[[Feature], bool], value: Any) -> _Plant:
    """Return a fault of one value in the last snapshot of the first view with such a feature."""

    def plant(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
        from lockstep.catalogue import Catalogue
        from lockstep.feature_contract import check_values

        for view, feature in ((v, f) for v in Catalogue(p).views for f in v.features if has(f)):
            for file in sorted((p.root / "artifacts/features" / view.name).rglob("*.parquet"))[-1:]:
                rows = read_parquet(file)
                kind = rows.schema[feature.name]
                if rows.is_empty() or width(kind) or kind.is_unsigned_integer():  # the last has nothing below 0
                    continue
                bad = pl.lit(value(feature)).cast(kind)
                first = pl.when(pl.int_range(pl.len()) == 0).then(bad).otherwise(feature.name).alias(feature.name)
                return _attempt(
                    name, about, guard,
                    lambda: check_values(rows.with_columns(first), [feature], view.keys, view.name),  # noqa: B023
                )  # fmt: skip
        raise UserError("no snapshot of a view with such a feature", where="artifacts/features", do="There is none.")

    return plant


def _beyond(feature: Feature) -> float:
    low, high = feature.bounds
    return low - 1 if low is not None else cast(float, high) + 1


def _champion(p: Project, folder: Path | None = None) -> Fitted:
    """Open the model that answers requests, or what lies in `folder` in its stead."""
    from lockstep.model_file import open_model

    champion, built = p.settings.serve.model, p.root / "artifacts"
    card = built / "evaluate" / champion / "card.json"
    if not card.is_file():
        raise UserError("no model", where=f"model {champion}", do="Run `lockstep run`.")
    return open_model(folder or built / "model" / champion, read_json(card)["hashes"])


def _asked(name: str, about: str, guard: str, kind: str, value: Any) -> _Plant:
    """Return a fault of what a model is given in service: the first of its features of a kind has another value."""

    def plant(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
        preprocess = _champion(p).preprocess
        if not (features := getattr(preprocess, kind)):
            raise UserError("no such feature", where=f"model {p.settings.serve.model}", do="There is nothing to spoil.")
        row = _training(p, p.settings.models[p.settings.serve.model].question).row(0, named=True)
        return _attempt(name, about, guard, lambda: preprocess.transform_row({**row, features[0]: value}))

    return plant


def _model_altered(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
    _champion(p)
    shutil.copytree(p.root / "artifacts/model" / p.settings.serve.model, root)
    for file in root.iterdir():
        file.chmod(0o644)  # DVC protects its outputs
        _turn(file)
    return _attempt(
        "model-altered", "One byte of a model's file is another", "altered model file", lambda: _champion(p, root)
    )


class _NaN:
    """An estimator whose every score is not a number."""

    def predict_proba(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full((len(matrix), 2), np.nan)


def _nan_score(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
    spoilt = replace(_champion(p), estimator=_NaN())
    return _attempt(
        "nan-score", "A model gives a score that is not a number", "no probability",
        lambda: spoilt.predict(np.zeros((1, 1))),
    )  # fmt: skip


def _training(p: Project, question: str) -> pl.DataFrame:
    file = p.root / "artifacts/dataset" / question / "training.parquet"
    if not file.is_file():
        raise UserError("no training set", where=f"question {question}", do="Run `lockstep run`.")
    return read_parquet(file)


_Plant = Callable[[Project, Sample, Report, Path], Outcome]


def faults() -> dict[str, _Plant]:
    """Return every fault by name, as a function that plants it and tells what became of it."""
    found = {name: _of_rows(fault) for name, fault in FAULTS.items()}
    for name, about, damage in (
        ("file-cut-short", "A sealed file is cut short", _cut),
        ("byte-changed", "One byte of a sealed file is another", _turn),
    ):
        found[name] = _damaged(name, about, damage)
    for name, about, guard, kind, value in (
        ("null-in-service", "A feature that had no null when the model was fitted is null in service", "null where",
         "never_null_", None),
        ("text-in-service", "A number comes as text in service", "another type", "numbers_", "12"),
        ("infinity-in-service", "A feature is infinite in service", "infinity", "numbers_", float("inf")),
    ):  # fmt: skip
        found[name] = _asked(name, about, guard, kind, value)
    found["feature-out-of-range"] = _of_features(
        "feature-out-of-range", "One value of a snapshot is outside of its feature's range", "out of its range",
        lambda f: f.bounds != (None, None), _beyond,
    )  # fmt: skip
    found["feature-null"] = _of_features(
        "feature-null", "One value of a snapshot is null where its feature never is", "null",
        lambda f: f.never_null, lambda _: None,
    )  # fmt: skip
    return {**found, "model-altered": _model_altered, "nan-score": _nan_score, "label-echo": _label_echo}
