"""Plant faults in the project's own rows and see which guard stops each: the guards are only as good as this says.

A fault is planted in the last weeks of what has landed, in a temporary folder: it goes through the same door, rules and
stages as real rows, and the project is not touched.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from lockstep.contract import Contract, load_contracts
from lockstep.echo import require_no_echo
from lockstep.errors import DataError, GuaranteeError, LockstepError, UserError, did_you_mean
from lockstep.faults import FAULTS, Fault, Sample
from lockstep.files import read_json, read_parquet
from lockstep.land import land
from lockstep.landings import EMPTY, check_sealed, read_landings
from lockstep.population import PART
from lockstep.project import Project
from lockstep.validate import validate

if TYPE_CHECKING:
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
    """Return the outcomes as a Markdown table."""
    rows = [f"| `{o.fault}` | {o.about} | {o.guard} | {o.follows} |" for o in outcomes]
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
            except UserError as e:  # its contracts have nothing that this fault could break
                yield Outcome(name, "", "", "", f"not planted: {e}")


def sample(p: Project, weeks: int) -> Sample:
    """Return the raw rows of the last `weeks` of landing days; what landed before and has no days of its own, at first.

    Raises
    ------
    DataError
        Fewer days have landed.
    """
    contracts, landings = load_contracts(p.folder("contracts")), read_landings(p.root / "landings.csv")
    last = max((x.landing_day for x in landings), default=None)
    first = last - timedelta(days=7 * weeks - 1) if last else None
    if last is None or first is None or first < min(x.landing_day for x in landings):
        raise DataError(f"fewer than {weeks} weeks have landed", where="landings.csv", do="Give --weeks, or land more.")
    tables = {}
    for table, contract in contracts.items():
        schema = {**contract.schema(), "_landing_day": pl.Date()}
        wanted = [
            x for x in landings if x.table == table and x.byte_hash != EMPTY
            and (contract.calendar == "irregular" or x.landing_day >= first)
        ]  # fmt: skip
        frames = [
            read_parquet(p.root / "data" / x.path).with_columns(pl.lit(max(x.landing_day, first)).alias("_landing_day"))
            for x in wanted
        ]
        tables[table] = pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal").select(*schema)
    return Sample(tables, contracts, p.settings.clock, last)


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
        spoilt = fault.plant(honest)
        try:
            seen = _seen(honest.contracts, before, _through_the_door(root, spoilt, p.folder("contracts")))
        except LockstepError as e:
            names = [r.name for c in honest.contracts.values() for r in c.rules if r.kind == fault.guard]
            return _refused(fault.name, fault.about, fault.guard, e, names)
        stopped = next((name for name, (kind, _) in seen.items() if kind == fault.guard), "")
        said = ", ".join(f"{name} {what}" for name, (_, what) in seen.items())
        return Outcome(fault.name, fault.about, fault.guard, stopped, said or "nobody noticed")

    return plant


def _refused(name: str, about: str, guard: str, error: LockstepError, rules: Iterable[str] = ()) -> Outcome:
    """Return what became of a fault that was refused: stopped where its guard, or one of its `rules`, said so."""
    said = str(error)
    stopped = any(one in said for one in (guard, *rules))
    return Outcome(name, about, guard, error.what if stopped else "", f"refused: {said}")


def _seen(contracts: Mapping[str, Contract], before: Report, after: Report) -> dict[str, tuple[str, str]]:
    """Return what the guards noticed that they had not noticed of the honest rows: by name, the kind and the deed."""
    found: dict[str, tuple[str, str]] = {}
    for table, counts in after["tables"].items():
        honest = before["tables"][table]
        kinds = {r.name: r.kind for r in contracts[table].rules}
        for rule, now in counts["rules"].items():
            if (more := now["broken"] - honest["rules"][rule]["broken"]) > 0:
                done = {"quarantine": "quarantined", "flag": "flagged"}.get(now["then"], now["then"])
                found[f"{table} {rule}"] = (kinds.get(rule, rule), f"{done} {more} rows")
        if (more := counts["duplicates"] - honest["duplicates"]) > 0:
            found[f"{table} duplicates"] = ("duplicates", f"dropped {more} rows")
        for name, now in counts["statistics"].items():
            if honest["statistics"][name]["held"] and not now["held"]:
                found[f"{table} {name}"] = (now["kind"], "flagged the last landing days")
        for one in counts["health"]:
            if one not in honest["health"]:
                found[f"{table} health"] = ("health", f"flagged {one['landing_day']} as {one['finding']}")
    return found


def _attempt(name: str, about: str, guard: str, do: Callable[[], object]) -> Outcome:
    """Do what a guard should refuse."""
    try:
        do()
    except LockstepError as e:
        return _refused(name, about, guard, e)
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


def _asked(name: str, about: str, guard: str, change: Callable[[Fitted, dict[str, Any]], dict[str, Any]]) -> _Plant:
    """Return a fault of what a model is given in service."""

    def plant(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
        from lockstep.model_file import open_model

        champion, built = p.settings.serve.model, p.root / "artifacts"
        fitted = open_model(
            built / "model" / champion, read_json(built / "evaluate" / champion / "card.json")["hashes"]
        )
        row = _training(p, p.settings.models[champion].question).row(0, named=True)
        return _attempt(name, about, guard, lambda: fitted.preprocess.transform_row(change(fitted, row)))

    return plant


def _model_altered(p: Project, honest: Sample, before: Report, root: Path) -> Outcome:  # noqa: ARG001 - as the others
    from lockstep.model_file import open_model

    champion, built = p.settings.serve.model, p.root / "artifacts"
    shutil.copytree(built / "model" / champion, root)
    for file in root.iterdir():
        file.chmod(0o644)  # DVC protects its outputs
        _turn(file)
    hashes = read_json(built / "evaluate" / champion / "card.json")["hashes"]
    return _attempt(
        "model-altered", "One byte of a model's file is another", "altered model file", lambda: open_model(root, hashes)
    )


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
    for name, about, guard, change in (
        (
            "null-in-service", "A feature that had no null when the model was fitted is null in service", "null where",
            lambda fitted, row: {**row, fitted.preprocess.never_null_[0]: None},
        ),
        (
            "text-in-service", "A number comes as text in service", "another type",
            lambda fitted, row: {**row, fitted.preprocess.numbers_[0]: "12"},
        ),
        (
            "infinity-in-service", "A feature is infinite in service", "infinity",
            lambda fitted, row: {**row, fitted.preprocess.numbers_[0]: float("inf")},
        ),
    ):  # fmt: skip
        found[name] = _asked(name, about, guard, change)
    return {**found, "model-altered": _model_altered, "label-echo": _label_echo}
