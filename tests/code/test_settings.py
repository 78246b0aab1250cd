from pathlib import Path

import pytest

from lockstep.errors import SettingsError
from lockstep.settings import read_settings

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


@pytest.fixture
def written(tmp_path):
    def write(old: str, new: str) -> Path:
        text = PARAMS.read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
        return tmp_path / "params.yaml"

    return write


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "train_until:",
            "train_untl:",
            r"unknown key 'questions.lapse.dataset.train_untl' in params.yaml. Did you mean 'train_until'",
        ),
        ("zone:", "zon:", r"unknown key 'zon' in params.yaml. Did you mean 'zone'"),
        ("grid: {", "grids: {", r"unknown key 'models.rfm.grids' in params.yaml. Did you mean 'grid'"),
        (
            '"2017-08-21"',
            '"2017-08-32"',
            r"questions.lapse.dataset.train_until.*'2017-08-32' is not a day; write it as YYYY-MM-DD",
        ),
        ('"2017-08-21"', "2017-08-21", r"questions.lapse.dataset.train_until.*not a quoted day"),
        ('"2017-08-21"', '"2017-09-18"', r"train_until 2017-09-18 must be before test_from"),
        ("estimator: hist", "estimator: his", r"models.rfm.estimator"),
        ("seed: 0", "seed: zero", r"bad value for 'train.seed' in params.yaml: found .*integer"),
        ("resamples: 200", "resamples: 2", r"evaluate.resamples"),
        ("zone:", "zone: [", r"not YAML in params.yaml"),
        ("question: lapse", "question: laps", r"models.rfm.question names no question: 'laps'. Did you mean 'lapse'"),
        ("service: full", "service: ful", r"models.full.service names no service of lapse: 'ful'. Did you mean 'full'"),
        ("challenger: full", "challenger: till", r"challenger 'till' answers 'back', shadow.question is 'lapse'"),
        ("model: rfm", "model: rmf", r"serve.model names no model: 'rmf'. Did you mean 'rfm'"),
        (
            "trips_90d: [3, 10, 30]",
            "trips_90d: [10, 3, 30]",
            r"slices.trips_90d.* found edges \[10.0, 3.0, 30.0\] do not",
        ),
        ("tenure_days: [90, 180]", "tenure_days: [90, 90]", r"slices.tenure_days.* found edges \[90.0, 90.0\] do not"),
        ("logistic: {recency:", "logistic: {mean:", r"questions.lapse.baselines.* 'mean' is a name of Lockstep's own"),
        ("logistic: {recency:", "logistic: {cutoff:", r"'cutoff' is a name of Lockstep's own"),
        ("\n  back:\n", "\n  online:\n", r"questions.online: 'online' is a line of every verdict"),
        ("logistic: {recency:", "logistic: {rfm:", r"models.rfm is also the name of a baseline of lapse"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_its_key(written, old, new, said):
    with pytest.raises(SettingsError, match=said):
        read_settings(written(old, new))


def test_settings_are_frozen_and_read_as_types():
    settings = read_settings(PARAMS)
    assert len(settings.questions["lapse"].dataset.cutoffs.days()) == 36
    with pytest.raises(ValueError, match="frozen"):
        settings.questions["lapse"].dataset.train_until = None


def test_no_settings_at_all_says_where_to_run(tmp_path):
    with pytest.raises(SettingsError, match="Run inside a Lockstep project"):
        read_settings(tmp_path / "params.yaml")


def test_one_model_needs_no_challenger_and_a_comparison_says_what_it_needs(written):
    text = PARAMS.read_text(encoding="utf-8")
    settings = read_settings(written(text[text.index("\nshadow:") :], "\n"))
    assert settings.serve.model == "rfm"
    with pytest.raises(SettingsError, match=r"no challenger in params.yaml: expected a section `shadow` and its stage"):
        _ = settings.comparison
