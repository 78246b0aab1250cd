"""``params.yaml`` as frozen, typed settings; an unknown key is an error that names the nearest known one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lockstep.clock import Zone, days, parse_day
from lockstep.errors import SettingsError, did_you_mean

__all__ = [
    "Baselines",
    "Dataset",
    "Evaluate",
    "Land",
    "Model",
    "QuestionSettings",
    "Serve",
    "Settings",
    "Shadow",
    "Train",
    "read_settings",
]


def _quoted_day(value: object) -> date:
    """Accept quoted ISO days only: DVC dies of YAML's own date type ("Unsupported value of type 'date'")."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a quoted day; write it as 'YYYY-MM-DD', in quotes")
    return parse_day(value)


def _quoted_instant(value: object) -> datetime:
    """Accept quoted ISO instants that name their offset, such as '2018-01-01T05:00:00Z'."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else None
    if found is None or found.tzinfo is None:
        raise ValueError(f"{value!r} is not a quoted instant with an offset; write it as 'YYYY-MM-DDTHH:MM:SSZ'")
    return found.astimezone(UTC)


def _known_zone(name: str) -> str:
    if name not in (known := available_timezones()):
        raise ValueError(f"{name!r} is not a time zone. {did_you_mean(name, known) if name else ''}"[:200])
    return name


def _rising(edges: list[float]) -> list[float]:
    if not all(low < high for low, high in pairwise(edges)):
        raise ValueError(f"edges {edges} do not rise; write each once, in order")
    return edges


Day = Annotated[date, BeforeValidator(_quoted_day)]
Instant = Annotated[datetime, BeforeValidator(_quoted_instant)]


LEDGER = ("landings", "rows", "health", "features", "shadow", "online", "outputs")
"""The lines of a run's verdict that are no question's."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Land(_Frozen):
    """What `lockstep land` seals by default."""

    first: Day
    until: Day
    keep_one_in: Annotated[int, Field(ge=1)] = 1


class Cutoffs(_Frozen):
    """The days on which the question is asked."""

    first: Day
    last: Day
    every_days: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _first_comes_first(self) -> Cutoffs:
        if self.first > self.last:
            raise ValueError(f"first {self.first} must not be after last {self.last}")
        return self

    def days(self) -> list[date]:
        """Return the cut-offs in order."""
        return list(days(self.first, self.last))[:: self.every_days]


class Known(_Frozen):
    """The knowledge days of the parts of the training set; None is the default of the part."""

    train: Day | None = None
    test: Day | None = None


class Dataset(_Frozen):
    """A question's cut-offs, their split by time, the knowledge days, and the services whose features are joined."""

    services: Annotated[list[str], Field(min_length=1)]
    cutoffs: Cutoffs
    train_until: Day
    test_from: Day
    known: Known = Known()
    echo: Annotated[float, Field(gt=0.5, le=1)] | None = 0.99
    """The AUC from which on a single feature of the training rows counts as the label in disguise; None: never."""

    @model_validator(mode="after")
    def _train_comes_before_test(self) -> Dataset:
        if self.train_until >= self.test_from:
            raise ValueError(f"train_until {self.train_until} must be before test_from {self.test_from}")
        return self


class Train(_Frozen):
    """How hyperparameters are chosen and seeded."""

    seed: int
    validation_cutoffs: Annotated[int, Field(ge=1)]


class Preprocess(_Frozen):
    """Fitted steps for numeric columns, in order, and the encoding of categorical ones."""

    numeric: list[Literal["impute", "clip", "log", "scale", "quantile"]] = []
    categorical: Literal["ordinal", "one_hot", "target"] = "ordinal"


class Model(_Frozen):
    """The question that a model answers, the service it reads, its estimator and its grid."""

    question: str
    service: str
    estimator: Literal["hist_gradient_boosting", "logistic_regression"]
    preprocess: Preprocess = Preprocess()
    fixed: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}


class BgNbd(_Frozen):
    """The columns that a BG/NBD model reads: purchases so far, first and last purchase."""

    frequency: str
    first: str
    last: str


class Baselines(_Frozen):
    """What stands beside the models: the share of label 1, logistic regressions on one column each, and BG/NBD.

    For BG/NBD label 1 must mean "no purchase within the horizon", of a question that is asked on days: the chance of
    that is what it gives.
    """

    logistic: dict[str, str] = {}
    bg_nbd: BgNbd | None = None

    @property
    def names(self) -> list[str]:
        """Return what the baselines are called."""
        return ["mean", *self.logistic, *(["bg_nbd"] if self.bg_nbd else [])]

    @model_validator(mode="after")
    def _names_are_free(self) -> Baselines:
        for name in ("mean", "bg_nbd", "cutoff", "label"):
            if name in self.logistic:
                raise ValueError(f"logistic: {name!r} is a name of Lockstep's own. Choose another.")
        return self


class QuestionSettings(_Frozen):
    """One question: its training set, its baselines, and the columns by whose bins its models are judged."""

    dataset: Dataset
    baselines: Baselines
    slices: dict[str, Annotated[list[float], AfterValidator(_rising)]] = {}


class Evaluate(_Frozen):
    """How intervals are drawn."""

    seed: int
    resamples: Annotated[int, Field(ge=20)]


class Serve(_Frozen):
    """What answers requests, and on which clock; None is the wall clock."""

    model: str
    clock: Instant | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 8000


class Shadow(_Frozen):
    """How the challenger is compared with the model that serves, and when it is promoted; both answer `question`.

    `changed` are features, by their plain names, whose new version is meant to have other values.
    """

    question: str
    challenger: str
    minimum_gain: Annotated[float, Field(ge=0)]
    drift: Annotated[float, Field(gt=0)]
    seed: int
    resamples: Annotated[int, Field(ge=20)]
    changed: list[str] = []


class Settings(_Frozen):
    """All of ``params.yaml``."""

    zone: Annotated[str, AfterValidator(_known_zone)]
    land: Land
    questions: Annotated[dict[str, QuestionSettings], Field(min_length=1)]
    train: Train
    models: dict[str, Model]
    evaluate: Evaluate
    serve: Serve
    shadow: Shadow | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Settings:
        shown = {"serve.model": self.serve.model}
        shown |= {"shadow.challenger": self.shadow.challenger} if self.shadow else {}
        named = [(key, "model", name, list(self.models)) for key, name in shown.items()]
        for model, about in self.models.items():
            asked = self.questions.get(about.question)
            named.append((f"models.{model}.question", "question", about.question, list(self.questions)))
            named.append((f"models.{model}.service", f"service of {about.question}", about.service,
                          asked.dataset.services if asked else [about.service]))  # fmt: skip
            if asked and model in asked.baselines.names:
                raise ValueError(f"models.{model} is also the name of a baseline of {about.question}. Rename one.")
        if taken := next((q for q in self.questions if q in LEDGER), None):
            raise ValueError(f"questions.{taken}: {taken!r} is a line of every verdict. Call the question otherwise.")
        for key, kind, name, known in named:
            if name not in known:
                raise ValueError(f"{key} names no {kind}: {name!r}. {did_you_mean(name, known)}")
        for key, name in shown.items():
            if self.shadow and (found := self.models[name].question) != self.shadow.question:
                raise ValueError(f"{key} {name!r} answers {found!r}, shadow.question is {self.shadow.question!r}")
        return self

    @property
    def comparison(self) -> Shadow:
        """Return how challenger and champion are compared; raise SettingsError where there is no challenger."""
        if self.shadow is None:
            raise SettingsError(
                "no challenger", where="params.yaml", expected="a section `shadow` and its stage in dvc.yaml",
                do="docs/your-own-data.md says how a second model comes in.",
            )  # fmt: skip
        return self.shadow

    @property
    def clock(self) -> Zone:
        """Return the zone whose days count."""
        return Zone(self.zone)


def read_settings(path: Path) -> Settings:
    """Read `path` into frozen settings.

    Raises
    ------
    SettingsError
        The file is missing or not YAML, a key is unknown or missing, or a value is of the wrong kind: named with its
        full key, and for an unknown key with the nearest known one.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError("no settings", where=str(path), do="Run inside a Lockstep project.") from None
    except yaml.YAMLError as e:
        raise SettingsError("not YAML", where=path.name, found=" ".join(str(e).split()), do="Mend the file.") from None
    try:
        return Settings.model_validate(raw)
    except ValidationError as e:
        raise _first_error(e, path.name) from None


def _first_error(error: ValidationError, where: str) -> SettingsError:
    """Turn the most telling of pydantic's findings into one sentence."""
    found = error.errors(include_url=False)
    first = next((f for f in found if f["type"] == "extra_forbidden"), found[0])  # a typo is also a missing key
    keys = [str(k) for k in first["loc"]]
    dotted = ".".join(keys)
    if first["type"] == "extra_forbidden":
        return SettingsError(f"unknown key {dotted!r}", where=where, do=did_you_mean(keys[-1], _known_keys(keys[:-1])))
    if first["type"] == "missing":
        return SettingsError(f"missing key {dotted!r}", where=where, do="Add it.")
    message = first["msg"].removeprefix("Value error, ")
    return SettingsError(f"bad value for {dotted!r}" if dotted else "bad settings", where=where, found=message)


def _known_keys(parents: list[str]) -> list[str]:
    """Return the keys that the settings know below `parents`."""
    model: Any = Settings
    for key in parents:
        field = getattr(model, "model_fields", {}).get(key)
        if field is None:  # a user's own name, such as a model's: its values are what the mapping holds
            continue
        inner = [a for a in getattr(field.annotation, "__args__", ()) if hasattr(a, "model_fields")]
        model = inner[0] if inner else field.annotation
    return list(getattr(model, "model_fields", {}))
