"""What `lockstep materialize` says of a snapshot before it touches the store."""

from datetime import date
from types import SimpleNamespace

import polars as pl
import pytest

from features.sources import household, trips
from lockstep import agg
from lockstep.define import Feature, View
from lockstep.errors import DataError
from lockstep.files import write_parquet
from lockstep.materialize import _planned
from lockstep.project import project
from tests.conftest import ROOT

DAY = date(2017, 2, 1)
ABOUT = {"hashes": {"features": "1", "code": "2"}}


@pytest.fixture
def planned(tmp_path):
    """Return a function that plans a snapshot of views, given as name=(what follows a missing row, rows)."""

    def plan(**given):
        views = []
        for name, (missing, rows) in given.items():
            default = {"default": 0} if missing == "default" else {}
            count = Feature("n_" + name, agg.count(), **default)
            views.append(View(name, [household], trips, [count], ttl_days=7, missing=missing))
            keys = pl.DataFrame({"household_id": pl.Series(range(rows), dtype=pl.Int64)})
            write_parquet(keys, tmp_path / "artifacts/features" / views[-1].folder / f"{DAY}.parquet")
        here = SimpleNamespace(root=tmp_path, settings=project(ROOT).settings)
        return _planned(SimpleNamespace(project=here, views=views), ABOUT, DAY)

    return plan


def test_a_view_without_rows_is_named_with_its_day_and_with_what_stands_in(planned, capsys):
    online = planned(full=("refuse", 2), bare=("null", 0), plain=("default", 0))
    assert {name: view.rows for name, view in online.views.items()} == {"full": 2, "bare": 0, "plain": 0}
    assert capsys.readouterr().out.splitlines() == [
        "warning: view bare has no rows on 2017-02-01: nulls stand in for everybody",
        "warning: view plain has no rows on 2017-02-01: defaults stand in for everybody",
    ]


def test_a_view_without_rows_that_refuses_to_do_without_is_refused(planned):
    with pytest.raises(DataError, match=r"a snapshot without rows in view bare, 2017-02-01\. .*"):
        planned(full=("null", 2), bare=("refuse", 0))


def test_a_day_on_which_no_view_has_rows_is_refused(planned):
    with pytest.raises(DataError, match=r"a snapshot without rows in artifacts/features, 2017-02-01\. .*"):
        planned(one=("null", 0), two=("default", 0))


def test_nothing_is_said_where_every_view_has_rows(planned, capsys):
    planned(one=("null", 1), two=("default", 1))
    assert capsys.readouterr().out == ""
