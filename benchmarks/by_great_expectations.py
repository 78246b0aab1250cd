"""Great Expectations as a peer: on DuckDB, as in Lockstep's second opinion, and on pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lockstep.gx_duckdb  # noqa: F401 - first: it says how Great Expectations is imported

import great_expectations as gx  # isort: skip
import great_expectations.expectations as gxe  # isort: skip
import numpy as np
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.metrics import ColumnAggregateMetricProvider
from great_expectations.expectations.metrics.column_aggregate_metric_provider import column_aggregate_value

from benchmarks.validation import Work, given
from lockstep.errors import GuaranteeError
from lockstep.gx_statistics import expectation, observe
from lockstep.judge import judge, suite


class ColumnBinsOfPandas(ColumnAggregateMetricProvider):  # type: ignore[misc]
    """The rows in each bin: see `lockstep.gx_statistics.ColumnBins`. To define it is to register it."""

    metric_name = "column.lockstep_bins"
    value_keys = ("edges", "known")

    @column_aggregate_value(engine=PandasExecutionEngine, filter_column_isnull=False)  # type: ignore[untyped-decorator]
    def _pandas(cls: Any, column: pd.Series, edges: list[float], known: list[str] | None, **_: Any) -> list[int]:  # noqa: N805
        present = column.dropna()
        if known is not None:
            counts = present.value_counts()
            inside = [int(counts.get(name, 0)) for name in known]
            return [*inside, len(present) - sum(inside), len(column) - len(present)]
        place = np.searchsorted(edges, present.to_numpy(), side="right")
        return [*np.bincount(place, minlength=len(edges) + 1).tolist(), len(column) - len(present)]


def on_duckdb(folder: str) -> Work:
    """Return the second opinion of Lockstep's stage."""
    contract, profile, files = given(folder)
    assert contract.statistics
    names = {r.name for r in contract.row_rules} - {"_deleted.not_null"}
    rules = contract.statistics.rules

    def work() -> Mapping[str, float]:
        counts = {j.rule: j.unexpected_count for j in judge(contract, files, {}) if j.rule in names}
        return counts | {name: value for name, (value, _) in observe("orders", rules, files, profile).items()}

    return work


def on_pandas(folder: str) -> Work:
    """Return the same expectations on a data frame of pandas."""
    contract, profile, files = given(folder)
    assert contract.statistics
    names = {r.name for r in contract.row_rules} - {"_deleted.not_null"}
    unique = gxe.ExpectCompoundColumnsToBeUnique(column_list=["id", "_landing_day"], meta={"rule": "id.unique"})
    asked = [e for e in suite(contract, {}).expectations if e.meta["rule"] in names - {"id.unique"}]
    asked.append(unique)  # ours is SQL, since it forgives exact copies; here are none
    asked += [expectation(rule, profile.columns[rule.column]) for rule in contract.statistics.rules]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    frames = context.data_sources.add_pandas("frames").add_dataframe_asset("orders")
    whole = frames.add_batch_definition_whole_dataframe("all")

    def work() -> Mapping[str, float]:
        rows = pd.concat([pd.read_parquet(f).assign(_landing_day=f.stem) for f in files], ignore_index=True)
        batch = whole.get_batch({"dataframe": rows})
        results = batch.validate(gx.ExpectationSuite("orders", expectations=asked), result_format="BASIC").results
        return dict(_read(result) for result in results)

    return work


def _read(result: Any) -> tuple[str, float]:
    if any(one.get("raised_exception") for one in [result.exception_info] if isinstance(one, dict)):
        raise GuaranteeError("an expectation could not run", found=result.exception_info)
    found, kind = result.result, result.expectation_config.type
    value = found.get("unexpected_count", found.get("observed_value"))
    return result.expectation_config.meta["rule"], 1 - value if "proportion" in kind else value
