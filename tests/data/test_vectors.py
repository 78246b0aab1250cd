"""The vectors of product categories on the real lines: comparable over months, the same bits anywhere, never ahead."""

import itertools
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from features.category import VECTOR, YEAR, category_lines, decompose, vectors
from features.landing import rows
from lockstep.clock import Zone
from lockstep.feast_objects import feature_store
from lockstep.project import project
from lockstep.settings import Land
from tests.conftest import ENV, ROOT, lockstep

# Feast 0.67 imports modules that warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore:::feast", "ignore::DeprecationWarning", "ignore::RuntimeWarning")

ZONE = Zone("America/New_York")
REFITS = [date(2017, month, 1) for month in range(2, 13)] + [date(2018, 1, 1)]


def lines(keep_one_in):
    land = Land(first="2017-01-01", until="2017-12-31", keep_one_in=keep_one_in)
    tables = {name: rows(name, land, ZONE).lazy() for name in ("transactions", "products")}
    return category_lines.derive(**tables).with_columns(ZONE.day(pl.col("at")).alias("event_day")).collect()


@pytest.fixture(scope="module")
def every():
    """All lines of the year."""
    return lines(1)


def cosines(one, other):
    """Cosine of each category's own two vectors."""
    both = one.join(other, on="product_category")
    a, b = (both[c].to_numpy() for c in (VECTOR, f"{VECTOR}_right"))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_vectors_of_any_two_months_are_comparable_and_without_the_rotation_they_are_not(every):
    turned, raw = [], []
    for day in REFITS:
        known = every.filter(pl.col("event_day") < day)
        turned.append(vectors(known, day))
        raw.append(decompose(known.filter(pl.col("event_day") >= day - YEAR)))

    def worst(fits):
        """Median and lowest decile of the cosines, in the worst pair of neighbours and of the first and the last."""
        pairs = [*itertools.pairwise(fits), (fits[0], fits[-1])]
        return np.min([np.quantile(cosines(*pair), [0.5, 0.1]) for pair in pairs], axis=0)

    assert (worst(turned) > [0.94, 0.7]).all()  # .947 and .740
    assert (worst(raw) < [0.7, 0.1]).all()  # .660 and .048


def test_neighbours_are_what_a_shopper_would_expect(every):
    found = vectors(every, date(2018, 1, 1))
    names, matrix = found["product_category"].to_list(), found[VECTOR].to_numpy()

    def nearest(name):
        return [names[i] for i in np.argsort(-(matrix @ matrix[names.index(name)]))[1:4]]

    assert set(nearest("BABY FOODS")) == {"DIAPERS & DISPOSABLES", "INFANT FORMULA", "INFANT CARE PRODUCTS"}
    assert "LIQUOR" in nearest("BEERS/ALES")


BITS = """
import sys
from datetime import date
import numpy as np
import polars as pl
import features.category as c
inside = []
honest = np.round
c.np.round = lambda x: honest(inside.append(x.tobytes()) or x)
import hashlib
got = c.vectors(pl.read_parquet(sys.argv[1]), date(2018, 1, 1))[c.VECTOR].to_numpy().tobytes()
print(hashlib.md5(got).hexdigest(), hashlib.md5(inside[-1]).hexdigest())
"""


def test_another_cpu_and_another_number_of_threads_give_the_same_bits(tmp_path):
    lines(20).write_parquet(tmp_path / "lines.parquet")

    def bits(**env):
        done = subprocess.run(
            [sys.executable, "-c", BITS, str(tmp_path / "lines.parquet")],
            cwd=ROOT, env={**ENV, **env}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()

    here, older, threads = bits(), bits(OPENBLAS_CORETYPE="Nehalem"), bits(OPENBLAS_NUM_THREADS="4")
    assert here[0] == older[0] == threads[0]
    assert here == threads
    if platform.machine() == "x86_64":
        assert here[1] != older[1]  # the kernels do differ, before the rounding


def test_feast_gives_the_vector_that_was_known_at_each_instant_offline(built_slice, tmp_path):
    store = feature_store(project(built_slice), str(tmp_path / "registry.db"))
    at = [datetime(2017, 1, 31, 23, tzinfo=UTC), datetime(2017, 4, 10, 9, tzinfo=UTC), datetime(2017, 4, 1, tzinfo=UTC)]
    asked = pl.DataFrame({"product_category": ["COFFEE"] * 3, "event_timestamp": at})
    refs = [f"category_vectors:{name}" for name in (VECTOR, f"{VECTOR}_fitted")]
    got = pl.DataFrame(store.get_historical_features(entity_df=asked, features=refs).to_arrow())
    every = lines(20)
    april, march = (
        vectors(every.filter(pl.col("event_day") < day), day).row(by_predicate=pl.col("product_category") == "COFFEE")[
            1
        ]
        for day in (date(2017, 4, 1), date(2017, 3, 1))
    )
    assert got[VECTOR].to_list() == [None, april, march]  # on April 1st UTC it still is March in New York
    versions = [ZONE.start(date(2017, month, 1)) for month in (1, 4, 3)]
    assert got[f"{VECTOR}_fitted"].to_list() == versions


PEEKS = """

class Peeking(FittedView):
    def as_of(self, day):
        return (super().as_of(day) + timedelta(days=31)).replace(day=1)


object.__setattr__(category_vectors, "__class__", Peeking)
"""


def test_a_fit_that_looks_ahead_is_caught(built_slice, copy):
    folder = copy(built_slice)
    with (folder / "features/category.py").open("a", encoding="utf-8") as handle:
        handle.write(PEEKS)
    shutil.rmtree(folder / "state/days/category_vectors")
    done = lockstep(folder, module="lockstep.snapshots")
    assert done.returncode == 0, done.stderr
    done = lockstep(folder, "prove", "leakage", "--days", "1")
    assert done.returncode == 1
    said = rf"'{VECTOR}' knows what it cannot know in view category_vectors, snapshot 2017-01-02, nothing later landed"
    assert re.search(rf"{said}.*: found \[0\.", done.stderr), done.stderr
