"""The comparison of two models on literal frames, and every fault that must stop it."""

import math
from datetime import date

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from lockstep.errors import GuaranteeError, SettingsError
from lockstep.psi import profile, psi
from lockstep.settings import Shadow
from lockstep.shadow import Side, compare, decide, differing, write

SETTINGS = Shadow(question="club", challenger="new", minimum_gain=0.002, drift=0.2, seed=0, resamples=40)
DAYS = {"train": date(2020, 1, 6), "test": date(2020, 3, 2)}


def side(name, scores, features, label=(0, 0, 1, 1)):
    """A model of four members, asked once in train and once in test; `scores` are those of the test rows."""
    member = [1, 2, 3, 4]
    rows = pl.concat(
        pl.DataFrame({"member": member, "cutoff": [day] * 4, "part": [part] * 4, **features})
        for part, day in DAYS.items()
    )
    asked = rows.select("member", "cutoff", "part")
    both = pl.Series([0.2, 0.2, 0.7, 0.7, *scores])
    answered = asked.with_columns(label=pl.Series([*label, *label], dtype=pl.Int8), score=both)
    return Side(name, f"hash of {name}", list(features), rows, answered)


OLD = side("old", [0.1, 0.6, 0.5, 0.9], {"visits": [1, 2, 3, 4]})
NEW = side("new", [0.1, 0.2, 0.5, 0.9], {"visits": [1, 2, 3, 4], "pause": [0.5, None, 2.0, -0.0]})


def run(champion=OLD, challenger=NEW, settings=SETTINGS):
    return compare(champion, challenger, ["member"], settings)


def test_two_models_are_compared_on_the_rows_that_both_scored():
    found = run().summary
    assert found["rows"] == {"champion": 4, "challenger": 4, "joined": 4, "entities": 4}
    assert found["features"] == {"champion": 1, "challenger": 2, "equal": 1}
    assert (found["champion"]["model"], found["champion"]["version"]) == ("old", "hash of old")
    assert found["champion"]["auc"] == 0.75  # 0.5 stands below 0.6: one pair of four
    assert found["challenger"]["auc"] == 1
    assert found["difference"]["auc"] == 0.25
    losses = {name: [math.log(x) for x in xs] for name, xs in {"o": (0.9, 0.4, 0.5, 0.9), "n": (0.9, 0.8, 0.5, 0.9)}.items()}  # fmt: skip  # noqa: E501
    assert found["champion"]["log_loss"] == round(-sum(losses["o"]) / 4, 6)
    assert found["difference"]["log_loss"] == pytest.approx((sum(losses["o"]) - sum(losses["n"])) / 4, abs=2e-6)


def test_agreement_is_what_a_practitioner_reads_first():
    a, b = [0.1, 0.6, 0.5, 0.9], [0.1, 0.2, 0.5, 0.9]
    assert run().summary["agreement"] == {
        "pearson": round(np.corrcoef(a, b)[0, 1], 6),
        "spearman": round(spearmanr(a, b).statistic, 6),
        "mean_absolute_difference": 0.1,
        "max_absolute_difference": 0.4,
        "same_decile": 0.5,  # the lowest and the highest
    }
    assert run(challenger=side("new", [0.3] * 4, {"visits": [1, 2, 3, 4]})).summary["agreement"]["pearson"] is None


def test_drift_is_of_every_feature_that_either_reads_and_of_both_scores_from_train_to_test():
    grown = NEW.rows.with_columns(
        visits=pl.when(pl.col("part") == "test").then(pl.col("visits") * 10).otherwise("visits")
    )
    found = run(OLD._replace(rows=grown.drop("pause")), NEW._replace(rows=grown))
    assert found.drift["column"].to_list() == ["visits", "pause", "score of old", "score of new"]
    visits, pause, old, _ = found.drift.rows(named=True)
    assert visits["psi"] == round(psi(profile(pl.Series([1, 2, 3, 4])), pl.Series([10, 20, 30, 40])), 6) > 0.2
    assert pause == {"column": "pause", "psi": 0, "edges": 3, "null_train": 0.25, "null_test": 0.25, "over": False}
    assert old["psi"] == round(psi(profile(pl.Series([0.2, 0.2, 0.7, 0.7])), pl.Series([0.1, 0.6, 0.5, 0.9])), 6)
    assert found.summary["drift"]["over"] == found.drift.filter("over")["column"].to_list()
    for limit, over in ((old["psi"], False), (old["psi"] - 1e-6, True)):  # a drift is above the limit
        again = run(settings=SETTINGS.model_copy(update={"drift": limit}))
        assert ("score of old" in again.summary["drift"]["over"]) is over
    assert "in sample" in found.summary["drift"]["train_scores"]
    assert found.summary["decision"] == run().summary["decision"]  # drift is told, it does not decide


def test_the_order_of_rows_changes_nothing(tmp_path):
    mixed = [
        s._replace(rows=s.rows[::-1], scores=s.scores.sample(fraction=1, shuffle=True, seed=2)) for s in (OLD, NEW)
    ]
    write(run(), tmp_path / "a")
    write(run(*mixed), tmp_path / "b")
    for name in ("shadow.json", "drift.csv", "scores.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("low", "minimum", "decision"),
    [(0.0031, 0.002, "promote"), (0.002, 0.002, "hold"), (0.0019, 0.002, "hold"), (-0.1, 0.0, "hold")],
)
def test_promotion_needs_the_lower_end_of_the_gain_above_the_minimum(low, minimum, decision):
    found = decide("old", "new", {"auc": 0.01, "auc_low": low, "auc_high": 0.02}, minimum)
    assert found["decision"] == decision
    end = f"its lower end is {'above' if decision == 'promote' else 'not above'} the minimum gain of {minimum}"
    assert found["reason"] == f"new gains 0.01 AUC over old, 95 % interval [{low}, 0.02]: {end}"


def test_a_decision_says_what_would_have_led_to_the_other_one():
    gain = {"auc": 0.01, "auc_low": 0.003, "auc_high": 0.02}
    assert decide("old", "new", gain, 0.002)["otherwise"] == "A minimum gain of 0.003 or more would have held it."
    assert decide("old", "new", gain, 0.003)["decision"] == "hold"
    assert decide("old", "new", gain, 0.005)["otherwise"] == (
        "Promotion asks for a lower end above 0.005, 0.002 more than it is."
    )


def test_a_gain_without_an_interval_is_held():
    found = decide("old", "new", {"auc": 0.2, "auc_low": None, "auc_high": None}, 0.0)
    assert found["decision"] == "hold"
    assert found["reason"].startswith("no interval of the gain of new over old")


class TestFaults:
    def refused(self, said, champion=OLD, challenger=NEW, error=GuaranteeError):
        with pytest.raises(error, match=said):
            run(champion, challenger)

    def test_the_challenger_is_the_champion(self):
        self.refused(r"the challenger is the champion in params.yaml .*found old", OLD, OLD, SettingsError)

    def test_a_row_that_one_model_did_not_score(self):
        gone = (pl.col("member") == 3) & (pl.col("part") == "test")
        short = NEW._replace(scores=NEW.scores.filter(~gone))
        said = (
            r"rows that are not in the scores of new in the dataset: .*1 of 8 rows, first member 3, cutoff 2020-03-02"
        )
        self.refused(said, challenger=short)

    def test_a_row_that_one_dataset_does_not_have(self):
        gone = (pl.col("member") == 3) & (pl.col("part") == "test")
        short = NEW._replace(scores=NEW.scores.filter(~gone), rows=NEW.rows.filter(~gone))
        said = r"rows that are not in the scores of new in the scores of old: .*first member 3, cutoff 2020-03-02"
        self.refused(said, challenger=short)

    def test_a_row_that_was_scored_twice(self):
        twice = OLD._replace(scores=pl.concat([OLD.scores, OLD.scores[:1]]))
        self.refused(r"a key that stands twice in the scores of old: .*2 of 9 rows, first member 1", champion=twice)

    def test_a_label_that_differs(self):
        other = side("new", [0.1, 0.2, 0.5, 0.9], {"visits": [1, 2, 3, 4]}, label=(0, 1, 1, 1))
        self.refused(r"labels that differ in the scores of old and the scores of new: .*2 of 8 rows", challenger=other)

    def test_a_shared_feature_of_another_type(self):
        other = NEW._replace(rows=NEW.rows.cast({"visits": pl.Float64}))
        self.refused(r"features that are not the same .*visits in 8 of 8 rows \(100 %\)", challenger=other)

    def test_a_feature_that_is_off_by_a_factor_on_one_side_though_its_psi_stays_under_the_limit(self):
        spend = np.random.default_rng(0).lognormal(3, 1, 2000)
        rows = pl.DataFrame({"member": range(2000), "cutoff": [DAYS["test"]] * 2000, "part": "test", "spend": spend})
        scored = rows.select("member", "cutoff", "part", label=pl.Series([0, 1] * 1000), score=pl.col("spend"))
        off = rows.with_columns(pl.col("spend") * 1.3)
        said = r"features that are not the same for both in .*: .* found spend in 2000 of 2000 rows \(100 %\)"
        self.refused(said, Side("old", "", ["spend"], rows, scored), Side("new", "", ["spend"], off, scored))
        assert 0 < psi(profile(rows["spend"]), off["spend"]) < SETTINGS.drift


VISITS = {"visits": [1, 2, 3, 4], "spend": [10.0, 0.0, None, 40.0]}
SAME = {"visits_v2": [1, 2, 3, 4], "spend": VISITS["spend"]}
OFF = {"visits": [1, 2, 3, 4], "spend_v2": [13.0, 0.0, None, 52.0]}


class TestVersionsOfAFeature:
    """The challenger reads version 2 of what the champion reads: other names, the same rows."""

    def compared(self, theirs, **more):
        champion = side("old", [0.1, 0.6, 0.5, 0.9], VISITS)
        return run(champion, side("new", [0.1, 0.2, 0.5, 0.9], theirs), SETTINGS.model_copy(update=more)).summary

    def test_a_version_that_is_not_said_to_differ_has_the_bits_of_the_one_before(self):
        found = self.compared(SAME)
        assert found["features"] == {"champion": 2, "challenger": 2, "equal": 2}
        pair = {"champion": "visits", "challenger": "visits_v2", "rows": 8, "differ": 0, "factor": None}
        assert found["versions"] == [pair]

    def test_one_that_is_off_by_a_factor_is_caught(self):
        said = (
            r"not the same for both .*found spend and spend_v2 in 4 of 8 rows \(50 %\), by a factor of 1.3. .*changed"
        )
        with pytest.raises(GuaranteeError, match=said):
            self.compared(OFF)

    def test_one_that_is_meant_to_differ_is_reported_with_its_factor(self):
        found = self.compared(OFF, changed=["spend"])
        assert found["versions"] == [
            {"champion": "spend", "challenger": "spend_v2", "rows": 8, "differ": 4, "factor": 1.3}
        ]
        assert found["features"]["equal"] == 1

    def test_the_parts_of_a_vector_are_those_of_its_versions(self):
        taste = {"taste[0]": [0.5, 1.0, None, 2.0], "taste[1]": [1.0, 1.0, 1.0, 1.0]}
        off = {"taste_v2[0]": [0.65, 1.3, None, 2.6], "taste_v2[1]": [1.3, 1.3, 1.3, 1.3]}
        champion, challenger = side("old", [0.1, 0.6, 0.5, 0.9], taste), side("new", [0.1, 0.2, 0.5, 0.9], off)
        with pytest.raises(GuaranteeError, match=r"taste\[0\] and taste_v2\[0\] in 6 of 8 rows"):
            run(champion, challenger, SETTINGS)
        found = run(champion, challenger, SETTINGS.model_copy(update={"changed": ["taste"]})).summary
        assert [(v["challenger"], v["factor"]) for v in found["versions"]] == [
            ("taste_v2[0]", 1.3),
            ("taste_v2[1]", 1.3),
        ]

    def test_no_feature_under_one_name_may_differ_whatever_is_said(self):
        off = {"visits": [1, 2, 3, 5], "spend_v2": OFF["spend_v2"]}
        with pytest.raises(GuaranteeError, match=r"found visits in 2 of 8 rows \(25 %\), by a factor of 1.0"):
            self.compared(off, changed=["spend"])
        with pytest.raises(SettingsError, match=r"no two versions of 'spent' in params.yaml shadow.changed. Did you mean 'spend'"):  # fmt: skip  # noqa: E501
            self.compared(OFF, changed=["spent"])


def test_equal_means_bit_equal():
    a = pl.DataFrame({"k": [1, 2, 3, 4], "x": [0.1 + 0.2, 0.0, None, math.nan], "s": ["a", None, "c", "d"]})
    b = pl.DataFrame({"k": [4, 3, 2, 1], "x": [math.nan, None, -0.0, 0.3], "s": ["d", "x", None, "a"]})
    assert differing(a, b, ["k"], ["x", "s"]) == {"x": 2, "s": 1}
    assert differing(a, a[::-1], ["k"], ["x", "s"]) == {"x": 0, "s": 0}
