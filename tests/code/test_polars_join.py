"""The as-of look-up alone, at the edges of the integers, against a plain reading of its rules."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.polars_join import LIMIT, Versions

Row = dict[str, Any]
NEAR, FAR = [0, 1, 2, 3], [-LIMIT, -LIMIT + 1, -1, 0, 1, LIMIT - 1, LIMIT]
TYPES = dict.fromkeys(("key", "time", "created", "known", "at", "since"), pl.Int64)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Row], list[Row], bool, bool]:
    instants = st.sampled_from(draw(st.sampled_from([NEAR, FAR])))
    maybe, keys = st.none() | instants, st.sampled_from([0, draw(st.sampled_from([1, 2**31]))])
    version = st.fixed_dictionaries({"key": keys, "time": instants, "created": maybe, "known": maybe})
    question = st.fixed_dictionaries({"key": st.none() | keys, "at": maybe, "since": instants})
    history, asked = draw(st.lists(version, max_size=8)), draw(st.lists(question, max_size=8))
    return history, asked, draw(st.booleans()), draw(st.booleans())


def plainly(row: Row, history: list[Row], late: bool, expire: bool) -> int | None:
    def counts(version: Row) -> bool:
        if row["key"] is None or row["at"] is None or version["key"] != row["key"] or version["time"] > row["at"]:
            return False
        return not late or (version["known"] is not None and version["known"] <= row["at"])

    def rank(n: int) -> tuple[Any, ...]:
        created = history[n]["created"]
        return history[n]["time"], created is not None, created or 0, n

    best = max((n for n, version in enumerate(history) if counts(version)), key=rank, default=None)
    return None if best is None or (expire and history[best]["time"] < row["since"]) else best


@settings(max_examples=400, deadline=None)
@given(cases())
def test_the_latest_row_is_the_one_of_a_plain_reading(case: tuple[list[Row], list[Row], bool, bool]) -> None:
    history, asked, late, expire = case
    frame = pl.DataFrame(history, schema={n: TYPES[n] for n in ("key", "time", "created", "known")})
    frame = frame.with_row_index("row").with_columns(tie_0=pl.col("row"))
    versions = Versions(frame if late else frame.drop("known"))
    questions = pl.DataFrame(asked, schema={n: TYPES[n] for n in ("key", "at", "since")})
    found = versions.latest(questions if expire else questions.drop("since"))
    assert found.to_list() == [plainly(row, history, late, expire) for row in asked]
    assert not versions.tied


def test_versions_are_tied_when_nothing_decides_between_two_of_one_key() -> None:
    def tied(*rows: tuple[int, int, int | None]) -> bool:
        frame = pl.DataFrame(list(rows), schema=["key", "time", "created"], orient="row").with_row_index("row")
        return Versions(frame.cast({"created": pl.Int64})).tied

    assert not tied()
    assert not tied((1, 5, 7), (2, 5, 7), (1, 6, 7), (1, 5, 8), (1, 5, None))
    assert tied((1, 5, 7), (2, 5, 7), (1, 5, 7))
    assert tied((1, 5, None), (1, 5, None))
