"""The record SLO: which share of a table's rows breaks no rule at all, over everything and over the last days.

Rules are judged jointly: each of two may keep 99.9 % of the rows while both together do not. Only what keeps a row out
counts, `fail` and `quarantine` rules with what `lockstep.versions` quarantines; repairs and flags do not, nor do rows
that were released and have landed again since.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from lockstep.contract import Contract
from lockstep.errors import GuaranteeError

__all__ = ["RECENT_DAYS", "judge_slo"]

RECENT_DAYS = 28


def judge_slo(contract: Contract, reasons: pl.Series, recent: pl.Series) -> dict[str, Any]:
    """Return how many rows are bad, what share is good (None without rows) and whether that holds.

    Parameters
    ----------
    reasons
        For each landed row the rules for which it is kept out, joined by a comma; null for a good one.
    recent
        Whether the row landed within the last `RECENT_DAYS` days.

    Raises
    ------
    GuaranteeError
        A share is below what the contract promises, and that is to `fail`.
    """
    slo, held, shares = contract.slo, True, {}
    for scope, found in {"all": reasons, "recent": reasons.filter(recent)}.items():
        rows, bad = len(found), len(found) - found.null_count()
        share = (rows - bad) / rows if rows else None
        shares[scope] = {"rows": rows, "bad": bad, "good_share": share}
        if share is not None and share < slo.records:
            held = False
            if slo.then == "fail":
                raise _broken(contract, found, share, scope)
    return {"records": slo.records, "then": slo.then, "held": held, **shares}


def _broken(contract: Contract, reasons: pl.Series, share: float, scope: str) -> GuaranteeError:
    each = reasons.drop_nulls().str.split(", ").explode(empty_as_null=False).alias("rule")
    counts = each.value_counts().sort("count", "rule", descending=[True, False])
    span = "" if scope == "all" else f", the last {RECENT_DAYS} landing days"
    return GuaranteeError(
        "the record SLO is broken", where=f"table {contract.table}{span}",
        expected=f"{contract.slo.records:.4%} of {len(reasons):,} rows without a fault",
        found=f"{share:.4%}, by " + ", ".join(f"{rule} {n:,}" for rule, n in counts.iter_rows()),
        do=f"See `lockstep quarantine {contract.table}`: release the rows repaired, or mend the source. To go on with "
        "the good rows, let `slo` of the contract promise less, or `then: flag`.",
    )  # fmt: skip
