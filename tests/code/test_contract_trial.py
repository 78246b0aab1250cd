"""A contract that is tried on rows of which some were released: what was waived stays waived."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl

from lockstep.clock import Zone
from lockstep.contract import load_contracts
from lockstep.contract_trial import try_contract
from lockstep.land import land
from lockstep.landings import read_landings
from lockstep.quarantine import release
from lockstep.validate import validate

CONTRACT = """
table: t
version: 1
owner: tests
event_time: day
key: [id]
calendar: daily
lateness: {days: null, then: flag}
slo: {records: 0.9, then: fail}
columns:
  id: {type: int64}
  day: {type: date}
  cents: {type: int64, range: [0, 100]}
"""


@dataclass(frozen=True)
class Here:
    """As much of a project as a trial looks at."""

    root: Path
    names: dict[str, str]
    settings: Any

    def folder(self, name):
        return self.root / self.names[name]


def test_released_rows_are_not_refused_again(tmp_path, monkeypatch):
    monkeypatch.setattr("lockstep.contract_trial.Catalogue", lambda _: None)  # there are no definitions
    zone, first = Zone("America/New_York"), date(2017, 1, 1)
    days = [first + timedelta(n // 60) for n in range(600)]
    rows = pl.DataFrame({"id": range(600), "day": days, "cents": [-1 if n in (5, 301) else n % 90 for n in range(600)]})
    rows = rows.with_columns(_landing_day="day")
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts/t.yaml").write_text(CONTRACT, encoding="utf-8")
    contracts = load_contracts(tmp_path / "contracts")
    land(tmp_path, contracts, lambda _: rows, first, days[-61])
    validate(
        tmp_path / "data", read_landings(tmp_path / "landings.csv"), contracts, zone, tmp_path / "artifacts",
        expectations=False,
    )  # fmt: skip
    release(tmp_path, contracts["t"], zone, ["cents.range"], "seen by hand", where={"id": "5"})
    land(tmp_path, contracts, lambda _: rows, first, days[-1])
    (tmp_path / "new.yaml").write_text(CONTRACT.replace("version: 1", "version: 2"), encoding="utf-8")
    here = Here(tmp_path, {"contracts": "contracts"}, SimpleNamespace(clock=zone))
    last = try_contract(here, tmp_path / "new.yaml", days=1)
    assert (last.old.rows, last.old.refused, last.new.refused, last.against) == (61, 0, 0, [])
    assert last.new.rules["cents.range"] == ("quarantine", 0)
    every = try_contract(here, tmp_path / "new.yaml", days=10)
    assert (every.old.rows, every.old.refused, every.new.refused) == (601, 2, 2)
