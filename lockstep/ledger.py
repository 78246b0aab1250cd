"""The verdict of a run: a short ledger of what was sealed, built and judged, and the page to open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep.errors import LockstepError
from lockstep.files import file_hash, read_json, write_json, write_text
from lockstep.landings import read_landings
from lockstep.lock import outputs_equal
from lockstep.online import proven
from lockstep.project import project

__all__ = ["Ledger", "read_ledger", "scores", "write_ledger"]


_SHOWN = "state/ledger/shown"


@dataclass(frozen=True)
class Ledger:
    """The lines of a verdict, in order, by name; and the page that shows them."""

    lines: dict[str, str]
    page: str

    def text(self) -> str:
        """Return the ledger for people."""
        width = max(map(len, self.lines))
        return "\n".join(
            [*(f"{name:<{width}}  {value}" for name, value in self.lines.items()), "", f"open {self.page}"]
        )

    def json(self) -> str:
        """Return the ledger for scripts."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def read_ledger(root: Path, data: str) -> Ledger | None:
    """Return the ledger that was stored for this ``dvc.lock`` and data, None where there is none."""
    path = _path(root, data)
    if not path.is_file():
        return None
    try:
        stored = Ledger(**read_json(path))
        shown = (root / _SHOWN).read_text(encoding="utf-8")
    except (LockstepError, OSError, TypeError):
        return None
    if shown != path.name or not (root / stored.page).is_file():  # the page shows another run
        return None
    return stored if stored.lines.get("outputs") == _outputs(root) else None  # HEAD may have moved since


def write_ledger(root: Path, data: str) -> Ledger:
    """Gather the ledger from the artifacts, render the page, and store both in ``state/``."""
    from lockstep.catalogue import Catalogue
    from lockstep.catalogue_page import write_catalogue
    from lockstep.page import write_page

    page = Path("state/report.html")
    ledger = Ledger({**_lines(root, data), "outputs": _outputs(root)}, str(page))
    write_page(root, ledger.lines, root / page)
    write_catalogue(Catalogue(project(root)))
    write_json(asdict(ledger), _path(root, data))
    write_text(_path(root, data).name, root / _SHOWN)
    return ledger


def _path(root: Path, data: str) -> Path:
    graph = file_hash(root / "dvc.yaml")[:12]
    return root / "state/ledger" / f"{file_hash(root / 'dvc.lock')}-{data.removesuffix('.dir')}-{graph}.json"


def _outputs(root: Path) -> str:
    equal = outputs_equal(root)
    if equal is None:
        return "no dvc.lock in git yet"
    more = "" if equal[0] == equal[1] else "; `dvc metrics diff` tells what moved"
    return f"{equal[0]}/{equal[1]} equal to the checked-in dvc.lock{more}"


def _lines(root: Path, data: str) -> dict[str, str]:
    artifacts = root / "artifacts"
    landings = read_landings(root / "landings.csv")
    validation, features = read_json(artifacts / "validation.json"), read_json(artifacts / "features.json")
    total = validation["total"]
    views = features["views"].values()
    named = sum(len(v["features"]) for v in views)
    days = {line.landing_day for line in landings}
    lines = {
        "landings": f"{len(landings)} sealed partitions of {len(days)} days, data {data[:12]}",
        "rows": f"{total['rows']:,} in = {total['clean']:,} out + {total['quarantined']:,} quarantined"
        f" + {total['duplicates']:,} duplicates",
        **_health(validation["tables"]),
        "features": f"{named} features x {max(v['snapshots'] for v in views)} days,"
        f" {features['hashes']['features'][:12]}",
    }
    for question, judged in scores(root).items():
        dataset = read_json(artifacts / "dataset" / question / "dataset.json")
        rows = ", ".join(f"{p['rows']:,} {name}" for name, p in dataset["parts"].items())
        base = f"base rate {dataset['all']['base_rate']:.4f}"
        lines[question] = f"{rows} rows, {base}, {dataset['hashes']['dataset'][:12]}"
        for name, m in judged.items():
            lines[f"{question} {name}"] = f"AUC {m['auc']:.4f} [{m['auc_low']:.4f}, {m['auc_high']:.4f}]"
    if project(root).settings.shadow:
        lines["shadow"] = _compared(read_json(artifacts / "shadow/shadow.json"))
    lines["online"] = proven(project(root)) or "nothing"
    return lines


def _health(tables: Mapping[str, Any]) -> dict[str, str]:
    """Return the line on landing days that are unlike those before them, none where there is no such day."""
    found = [f"{t} {f['landing_day']} {f['finding']}" for t, counts in tables.items() for f in counts["health"]]
    unlike = f"{len(found)} landing days unlike those before them: {', '.join(found[:3])}{', ...' * (len(found) > 3)}"
    return {"health": unlike} if found else {}


def _compared(found: Mapping[str, Any]) -> str:
    gain, pair = found["difference"], (found["challenger"]["model"], found["champion"]["model"])
    ends = "" if gain["auc_low"] is None else f" [{gain['auc_low']:.4f}, {gain['auc_high']:.4f}]"
    return f"{found['decision']} {pair[0]} over {pair[1]}: gain {gain['auc']:.4f}{ends}, asked {found['minimum_gain']}"


def scores(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return, for each question, the metrics of its models and baselines on the test part by name, best AUC first."""
    built, settings, found = root / "artifacts", project(root).settings, {}
    for question in settings.questions:
        models = [m for m, about in settings.models.items() if about.question == question]
        one = {m: read_json(built / "evaluate" / m / "metrics.json") for m in models}
        one |= read_json(built / "baselines" / question / "baselines.json")
        found[question] = dict(sorted(one.items(), key=lambda m: -m[1]["auc"]))
    return found
