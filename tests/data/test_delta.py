"""Raw tables in a Delta lake: the landing module of docs/raw-data.md, and its versions up to the card."""

import json
import re

import polars as pl
from deltalake import write_deltalake

from lockstep.landings import read_landings
from tests.conftest import ROOT, lockstep
from tests.data.copies import unseal

FIRST = "2017-10-15"


def landing_module(lake):
    """The code of the page, which reads a lake in S3, for a lake in a folder."""
    page = (ROOT / "docs/raw-data.md").read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "read_delta" in c]
    assert "s3://lake/" in code
    return code.replace("s3://lake/", f"{lake}/")


def append(lake, folder, some):
    """Write those of the raw rows for which `some` holds as the next version of each table that has any."""
    for path in sorted((folder / "data").iterdir()):
        files = sorted(path.glob("*.parquet"))
        days = [pl.lit(f.stem).str.to_date().alias("loaded_on") for f in files]
        rows = pl.concat(pl.read_parquet(f).with_columns(day) for f, day in zip(files, days, strict=True)).filter(some)
        if rows.height:
            write_deltalake(str(lake / path.name), rows.to_arrow(), mode="append")


def land(folder, *words):
    done = lockstep(folder, "land", *words)
    assert done.returncode == 0, done.stderr


def test_a_lake_lands_by_the_lines_of_the_page_and_the_card_names_its_versions(built_slice, copy, tmp_path):
    folder, lake = copy(built_slice), tmp_path / "lake"
    honest = read_landings(folder / "landings.csv")
    early = pl.col("loaded_on") <= pl.lit(FIRST).str.to_date()
    append(lake, folder, early)
    unseal(folder)
    (folder / "features/landing.py").write_text(landing_module(lake), encoding="utf-8")
    land(folder, "--until", FIRST)
    append(lake, built_slice, ~early)
    land(folder)

    landed = read_landings(folder / "landings.csv")
    assert [x._replace(source="") for x in landed] == honest  # a lake or files: the same bytes
    assert {x.source for x in landed if str(x.landing_day) <= FIRST} == {"delta 0"}
    assert {x.source for x in landed if str(x.landing_day) > FIRST and x.table == "transactions"} == {"delta 1"}
    for module, name in {"dataset": "lapse", "evaluate": "rfm"}.items():  # over the same clean rows and snapshots
        done = lockstep(folder, name, module=f"lockstep.{module}")
        assert done.returncode == 0, done.stdout + done.stderr

    card = json.loads((folder / "artifacts/evaluate/rfm/card.json").read_text())
    assert card["sources"]["transactions"] == ["delta 0", "delta 1"]
    assert card["sources"]["products"] == ["delta 0"]
    assert sorted(card["sources"]) == sorted({x.table for x in landed})
    built = json.loads((built_slice / "artifacts/evaluate/rfm/card.json").read_text())
    assert built["sources"] == {}
    assert card["hashes"]["dataset"] == built["hashes"]["dataset"]
    assert card["metrics"] == built["metrics"]
