"""What counts as a change of a view: everything that shapes its values, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date

import numpy as np
import polars as pl
import pytest

from lockstep.day_cache import DayCache, Hashes, day_keys
from lockstep.define import View
from lockstep.fingerprint import changes, view_parts
from lockstep.project import project
from tests.conftest import ENV, ROOT

VIEWS = """
import polars as pl
from features.amounts import monthly
from features.sources import household, trips
from features.others import visits
from features.taste import taste
from lockstep import agg
from lockstep.define import Feature, FittedView, View

spent = [Feature("n", agg.count(days=7)), Feature("m", monthly("value"))]
gone = [Feature("n", agg.count(where=pl.col("value") > 0)), Feature("two", pl.col("n") * 2)]
spending = View("spending", [household], trips, spent, ttl_days=7)
going = View("going", [household], trips, gone, ttl_days=7)
seeing = View("seeing", [household], visits, [Feature("n", agg.count())], ttl_days=7)
tasting = FittedView(
    "tasting", [household], visits, [Feature("t", pl.Array(pl.Float64, 2))], ttl_days=7, fit=taste, every="1mo"
)
"""
AMOUNTS = "from lockstep import agg\n\ndef monthly(column):\n    return agg.sum(column, days=30)\n"
OTHERS = """
from features.helper import only
from lockstep.define import source

@source(event_time="transaction_timestamp", key="basket_id")
def visits(transactions):
    return only(transactions)
"""
TASTE = "from features.grid import STEP\n\ndef taste(known, day):\n    return known.with_columns(t=STEP)\n"
HELPER = "def only(rows):\n    return rows.unique('basket_id')\n"
PRINT = """
import json
from lockstep.define import View
from lockstep.fingerprint import view_parts
from lockstep.project import project
p = project()
print(json.dumps({v.name: view_parts(p, v) for v in p.objects("views", View)}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    for name in ("lockstep", "features"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "params.yaml", "requirements.lock"):
        shutil.copyfile(ROOT / name, root / name)
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    (root / "pyproject.toml").write_text(re.sub(r"(?s)views = \[.*?\]", 'views = ["features.v"]', project))
    files = {"v": VIEWS, "amounts": AMOUNTS, "others": OTHERS, "helper": HELPER, "taste": TASTE, "grid": "STEP = 1\n"}
    for name, text in files.items():
        (root / f"features/{name}.py").write_text(text, encoding="utf-8")
    return root


def parts(folder):
    done = subprocess.run(
        [sys.executable, "-c", PRINT], cwd=folder, env=ENV, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def before(folder):
    return parts(folder)


OF_TRIPS, OF_VISITS, ALL = ("spending", "going"), ("seeing", "tasting"), ("spending", "going", "seeing", "tasting")


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("v.py", "days=7)", "days=8)", {"spending": ["feature n"]}),
        ("v.py", '"value") > 0', '"value") > 1', {"going": ["feature n"]}),
        ("v.py", "* 2", "* 3", {"going": ["feature two"]}),
        ("v.py", '"m"', '"k"', {"spending": ["the order of features", "feature k added", "feature m removed"]}),
        ("amounts.py", "days=30", "days=28", {"spending": ["feature m"]}),
        ("amounts.py", "days=30", "days=30, offset=1", {"spending": ["feature m"]}),
        ("helper.py", "'basket_id'", "'basket_id', keep='first'", {v: ["source visits"] for v in OF_VISITS}),
        ("others.py", 'key="basket_id"', 'key="product_id"', {v: ["source visits"] for v in OF_VISITS}),
        ("grid.py", "STEP = 1", "STEP = 2", {"tasting": ["the fit"]}),
        ("v.py", '"1mo"', '"1w"', {"tasting": ["the fit"]}),
        ("v.py", "Float64, 2", "Float64, 3", {"tasting": ["feature t"]}),
        ("../requirements.lock", "numpy==", "numpy===", {"tasting": ["the lock"]}),
        ("sources.py", ".min().alias", ".max().alias", {v: ["source trips"] for v in OF_TRIPS}),
        ("contracts/products.yaml", "owner:", "owner: x", {v: ["contract products"] for v in OF_TRIPS}),
        ("contracts/coupons.yaml", "owner:", "owner: x", {}),
        ("v.py", "ttl_days=7", "ttl_days=9, description='spends'", {}),
        ("../params.yaml", "America/New_York", "America/Chicago", {v: ["the zone"] for v in ALL}),
    ],
)
def test_a_change_touches_just_the_views_that_it_shapes_and_is_named(folder, before, file, old, new, changed):  # noqa: PLR0917
    path = folder / "features" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    try:
        path.write_text(text.replace(old, new), encoding="utf-8")
        after = parts(folder)
    finally:
        path.write_text(text, encoding="utf-8")
    said = {v: [c.removesuffix(" changed") for c in changes(before[v], after[v])] for v in before}
    assert {v: c for v, c in said.items() if c} == changed


def test_a_change_of_the_engine_touches_every_view(folder, before):
    file = folder / "lockstep/timeline.py"
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(text + "\nX = 1\n", encoding="utf-8")
        after = parts(folder)
    finally:
        file.write_text(text, encoding="utf-8")
    assert all("the engine changed" in changes(before[v], after[v]) for v in before)


def test_a_source_that_another_function_made_follows_all_definitions(folder, before):
    """Its text is in one module, what it holds comes from another: here the number of days."""
    made = (
        "from lockstep.define import source\n\ndef make(n):\n    @source(event_time='at', key='id')\n"
        "    def visits(transactions):\n        return transactions.head(n)\n    return visits\n"
    )
    views = VIEWS.replace("from features.others import visits", "from features.made import make\nvisits = make({n})")
    found = []
    try:
        (folder / "features/made.py").write_text(made, encoding="utf-8")
        for n in ("1", "2"):
            (folder / "features/v.py").write_text(views.replace("{n}", n), encoding="utf-8")
            found.append(parts(folder))
    finally:
        (folder / "features/v.py").write_text(VIEWS, encoding="utf-8")
        (folder / "features/made.py").unlink()
    assert {v: c for v in found[0] if (c := changes(found[0][v], found[1][v]))} == {
        v: ["source visits changed"] for v in OF_VISITS
    }


class TestDayCache:
    DAY = date(2017, 3, 12)
    FRAME = pl.DataFrame({"who": [1, 2], "n": [3, 4]})

    def cache(self, folder):
        return DayCache(folder / "days", Hashes(folder / "hashes.json"))

    def test_a_day_is_found_under_its_key_alone(self, tmp_path):
        kept = self.cache(tmp_path).keep(self.DAY, "k1", self.FRAME)
        assert self.cache(tmp_path).find(self.DAY, "k1") == kept
        assert kept.rows == 2
        assert pl.read_parquet(kept.path).equals(self.FRAME)
        assert self.cache(tmp_path).find(self.DAY, "k2") is None
        assert self.cache(tmp_path).find(date(2017, 3, 13), "k1") is None

    @pytest.mark.parametrize(
        "damage", ["cut short", "emptied", "altered in place", "altered with its old times", "gone"]
    )
    def test_a_damaged_file_is_not_found_even_where_its_hash_was_remembered(self, tmp_path, damage):
        cache = self.cache(tmp_path)
        path = cache.keep(self.DAY, "k", self.FRAME).path
        cache.hashes.save()
        cache, whole, stat = self.cache(tmp_path), path.read_bytes(), path.stat()
        altered = bytes([whole[0] ^ 1]) + whole[1:]
        {
            "cut short": lambda: path.write_bytes(whole[:100]),
            "emptied": lambda: path.write_bytes(b""),
            "altered in place": lambda: path.write_bytes(altered),
            "altered with its old times": lambda: (
                path.write_bytes(altered),
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns)),
            ),
            "gone": path.unlink,
        }[damage]()
        assert cache.find(self.DAY, "k") is None

    def test_two_processes_that_keep_the_same_day_leave_one_whole_file(self, tmp_path):
        mine, others = self.cache(tmp_path), self.cache(tmp_path)
        assert mine.keep(self.DAY, "k", self.FRAME) == others.keep(self.DAY, "k", self.FRAME)
        assert len(list((tmp_path / "days").iterdir())) == 1
        assert self.cache(tmp_path).find(self.DAY, "k")

    def test_what_is_no_longer_wanted_is_swept(self, tmp_path):
        cache = self.cache(tmp_path)
        old, new = (cache.keep(self.DAY, key, self.FRAME) for key in ("old", "new"))
        cache.sweep([new])
        assert (old.path.exists(), new.path.exists()) == (False, True)

    def test_broken_notes_of_hashes_are_forgotten(self, tmp_path):
        kept = self.cache(tmp_path).keep(self.DAY, "k", self.FRAME)
        for text in ("", "[1]", '{"a": 1}', *(json.dumps({str(kept.path): x}) for x in (["x"], [], 1))):
            (tmp_path / "hashes.json").write_text(text, encoding="utf-8")
            assert self.cache(tmp_path).find(self.DAY, "k") == kept


def test_the_key_of_a_day_follows_the_content_of_every_partition_known_by_then(tmp_path):
    days = [date(2017, 3, n) for n in (1, 2, 3)]
    files = {day: tmp_path / f"{day}.parquet" for day in days}
    for n, path in enumerate(files.values()):
        path.write_bytes(bytes([n]))

    def keys():
        return day_keys("seed", {"visits": files}, Hashes(tmp_path / "none.json"), date(2017, 3, 2), date(2017, 3, 5))

    before = keys()
    files[days[1]].write_bytes(b"other content")
    after = keys()
    assert {day.day: before[day] == after[day] for day in before} == {2: True, 3: False, 4: False, 5: False}
    assert len(set(before.values())) == 4
    seeded = day_keys("other", {"visits": files}, Hashes(tmp_path / "none.json"), date(2017, 3, 2), date(2017, 3, 5))
    assert not set(seeded.values()) & set(after.values())


@pytest.mark.parametrize("library", [pl, np], ids=["polars", "numpy"])
def test_another_polars_or_numpy_is_another_computation(monkeypatch, library):
    here = project(ROOT)
    view = here.objects("views", View)[0]
    before = view_parts(here, view)
    monkeypatch.setattr(library, "__version__", "0.0.1")
    assert changes(before, view_parts(here, view)) == ["polars or numpy changed"]
