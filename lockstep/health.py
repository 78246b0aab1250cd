"""The health of sources: landing days that are late, missing, half-empty, doubled or repeated, by what history shows.

A contract's rules judge rows; a day that never came, or came twice, breaks none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from statistics import median

import polars as pl

from lockstep.clock import days
from lockstep.contract import Contract, Health
from lockstep.landings import EMPTY, Landing, content_hash

__all__ = ["findings", "told"]

_SCHEMA = {
    "table": pl.String,
    "landing_day": pl.Date,
    "finding": pl.String,
    "rows": pl.Int64,
    "usual": pl.Float64,
    "then": pl.String,
}
_ENOUGH = 4  # fewer days of a weekday show nothing that is usual
_TELLING = 20  # fewer rows may be alike by chance

_Found = tuple[date, str, int, float | None]


def findings(
    landings: Iterable[Landing], contracts: Mapping[str, Contract], rows: Mapping[str, pl.DataFrame] | None = None
) -> pl.DataFrame:
    """Judge every landing day by the days before it alone, so that no later landing changes a finding.

    Parameters
    ----------
    landings
        The ledger of sealed days, or what it would be, of what the source sent: see `lockstep.landings.of_source`.
    contracts
        Those whose `health` says how; tables of others are not judged.
    rows
        Of tables whose rows are at hand, as the source sent them, with ``_landing_day``: they show a day that was sent
        again under new keys and event times, which the ledger's content hash cannot.

    Returns
    -------
    DataFrame
        ``table``, ``landing_day``, ``finding`` (``missing``, ``half-empty``, ``doubled``, ``late`` or ``repeats
        <landing day>``), its ``rows``, those that are ``usual`` (null where history is too short, and for ``late``;
        of ``repeats`` those of the earlier day) and ``then`` (``flag`` or ``fail``), by table and day.
    """
    lines = list(landings)
    found = []
    for table, contract in sorted(contracts.items()):
        mine = {x.landing_day: x for x in lines if x.table == table}
        if contract.health and mine:
            last = max(x.landing_day for x in lines)
            one = [*_by_count(contract, contract.health, mine, last), *_by_gap(contract.health, mine, last)]
            one += _repeats(contract, contract.health, mine, (rows or {}).get(table))
            found += [(table, *f, _follows(contract.health, f)) for f in one]
    return pl.DataFrame(found, _SCHEMA, orient="row").sort("table", "landing_day", "finding")


def told(found: pl.DataFrame) -> str:
    """Return findings in one line: the first three, and how many more there are."""
    shown = [f"{f['table']} {f['landing_day']} {f['finding']}" for f in found.head(3).to_dicts()]
    more = f" and {found.height - 3} more" if found.height > 3 else ""
    return f"{', '.join(shown)}{more}"


def _by_count(contract: Contract, health: Health, lines: Mapping[date, Landing], last: date) -> Iterator[_Found]:
    """Compare each day of a daily table with the same weekday of the weeks before."""
    if contract.calendar != "daily":
        return
    first = min(lines)
    counts = {d: lines[d].rows if d in lines else 0 for d in days(first, last) if d not in health.gaps}
    for day, rows in counts.items():
        before = [day - timedelta(7 * n) for n in range(1, health.weeks + 1)]
        history = [counts[d] for d in before if d in counts]
        usual = float(median(history)) if len(history) >= _ENOUGH else None
        if not rows and usual != 0:  # a weekday on which nothing ever lands is not missed
            yield day, "missing", rows, usual
        elif rows and usual and rows <= health.low * usual:
            yield day, "half-empty", rows, usual
        elif rows and usual and rows >= health.high * usual:
            yield day, "doubled", rows, usual


def _by_gap(health: Health, lines: Mapping[date, Landing], last: date) -> Iterator[_Found]:
    """Find the days on which more than `late_days` had gone by without a row."""
    behind = 0
    for day in days(min(lines), last) if health.late_days is not None else ():
        if day in lines and lines[day].rows:
            behind = 0
        elif day not in health.gaps:
            behind += 1
            if behind - 1 == health.late_days:
                yield day, "late", 0, None


def _repeats(
    contract: Contract, health: Health, lines: Mapping[date, Landing], rows: pl.DataFrame | None
) -> list[_Found]:
    """Find days whose rows landed on an earlier day; a dimension may be sent whole again and again."""
    if contract.event_time is None:
        return []
    known = {d: x.content_hash for d, x in lines.items() if x.content_hash != EMPTY}
    if rows is not None:  # a day that also has released rows is known by those of the source alone
        mixed = rows.filter(pl.col("_landing_day").is_in([d for d in lines if d not in known]))
        parts = mixed.partition_by("_landing_day", as_dict=True)
        known |= {key[0]: content_hash(part.select(*contract.schema())) for key, part in parts.items()}
    found = {**_same(known), **(_copies(contract, rows) if rows is not None else {})}
    return [
        (day, f"repeats {of}", lines[day].rows, float(lines[of].rows))
        for day, of in found.items()
        if day in lines and of in lines and day not in health.gaps
    ]


def _copies(contract: Contract, rows: pl.DataFrame) -> dict[date, date]:
    """Return days whose rows are those of an earlier day in all but key and event time, with that day.

    Told only of days with enough rows of which most differ: few, or all alike, may be so by chance.
    """
    named = {*contract.key, contract.event_time}
    content = [c for c in contract.columns if c not in named]
    if not content:
        return {}
    # Hashes of rows find the candidates in one pass; only of those the content itself is compared.
    marks = rows.select("_landing_day", pl.struct(content).hash().alias("mark")).group_by("_landing_day")
    alike = marks.agg(pl.len().alias("rows"), pl.col("mark").n_unique().alias("kinds"), pl.col("mark").sum())
    alike = alike.filter((pl.col("rows") >= _TELLING) & (pl.col("kinds") * 2 >= pl.col("rows")))
    some = alike.filter(pl.struct("rows", "mark").is_duplicated())["_landing_day"].sort().to_list()
    return _same({d: content_hash(rows.filter(_landing_day=d).select(content)) for d in some})


def _same(hashes: Mapping[date, str]) -> dict[date, date]:
    """Return the days whose hash an earlier day has, with the first such day."""
    first: dict[str, date] = {}
    return {day: first[h] for day, h in sorted(hashes.items()) if first.setdefault(h, day) != day}


def _follows(health: Health, found: _Found) -> str:
    """Return what follows: nothing fails for a count where few rows are usual."""
    _, finding, _, usual = found
    ample = finding == "late" or (usual is not None and usual >= health.ample)
    return health.then if ample else "flag"
