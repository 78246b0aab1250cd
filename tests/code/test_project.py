"""The shape of the tree: which way imports point, what stages depend on, that names and zones agree."""

# ruff: noqa: E501 - a mistake and its sentence a line

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lockstep.closure import closure, closure_hash
from lockstep.define import OnDemandView
from lockstep.deps import check_deps, write_deps
from lockstep.errors import DefinitionError, SettingsError
from lockstep.feast_objects import open_store
from lockstep.graph import stages
from lockstep.project import Project, project

ROOT = Path(__file__).resolve().parents[2]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize(("package", "never"), [("lockstep", {"features", "flows"}), ("features", {"flows"})])
def test_imports_point_one_way(package, never):
    for path in sorted((ROOT / package).rglob("*.py")):
        assert not imports(path) & never, path


def test_the_code_dependencies_of_every_stage_are_its_import_closure():
    assert check_deps(project(ROOT)) == {}


def test_the_clock_of_request_time_features_is_the_declared_zone():
    assert project(ROOT).settings.zone == project(ROOT).load("on_demand")[0].ZONE


def test_every_stage_depends_on_the_lock():
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        assert "requirements.lock" in stage.get("do", stage)["deps"], name


def test_the_zone_of_feast_is_the_zone_of_the_settings():
    store = yaml.safe_load((ROOT / "features/feature_store.yaml").read_text())
    assert store["offline_store"]["ttl_zone"] == project(ROOT).settings.zone


@pytest.mark.filterwarnings("ignore")  # Feast's own
def test_a_store_whose_days_are_of_another_zone_is_refused(tmp_path):
    (tmp_path / "features").mkdir()
    for name, zone in {"params.yaml": "Europe/Berlin", "features/feature_store.yaml": "America/New_York"}.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("America/New_York", zone), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"two zones in .*: expected ttl_zone: Europe/Berlin, found America/New_Y"):
        open_store(Project(tmp_path, {}))


def test_the_graph_lists_stages_after_what_they_wait_for():
    graph = stages(ROOT)
    assert set(graph) == {
        "validate", "features", "dataset@lapse", "dataset@back", "baselines@lapse", "baselines@back", "train@rfm",
        "train@full", "train@till", "evaluate@rfm", "evaluate@full", "evaluate@till",
        "shadow",
    }  # fmt: skip
    done = set()
    for name, waits in graph.items():
        assert set(waits) <= done, name
        done.add(name)
    assert set(graph["evaluate@full"]) >= {"train@full", "baselines@lapse", "dataset@lapse"}
    assert "train@rfm" not in graph["evaluate@full"]
    assert set(graph["shadow"]) == {"dataset@lapse", "train@rfm", "train@full", "evaluate@rfm", "evaluate@full"}


@pytest.fixture
def small(tmp_path):
    files = {
        "lib/__init__.py": "",
        "lib/a.py": "import os\nfrom lib import b\n\ndef f(p):\n    from .c import x\n    return p.load('views')\n",
        "lib/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.d\n",
        "lib/c.py": "x = 1\n",
        "lib/c.schema.json": "{}\n",
        "lib/d.py": "y = 1\n",
        "mine/__init__.py": "'''Mine.'''\n",
        "mine/views.py": "v = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return Project(tmp_path, {"views": ["mine.views"]})


def test_a_closure_follows_imports_at_any_depth_and_the_names_a_project_gives(small):
    assert closure(small, "lib.a") == [
        "lib/a.py",
        "lib/b.py",
        "lib/c.py",
        "lib/c.schema.json",
        "mine/__init__.py",
        "mine/views.py",
    ]
    before = closure_hash(small, "lib.a")
    (small.root / "lib/d.py").write_text("y = 2\n")
    assert closure_hash(small, "lib.a") == before
    (small.root / "mine/views.py").write_text("v = 2\n")
    assert closure_hash(small, "lib.a") != before


def test_a_missing_and_a_needless_dependency_are_told_and_mended(small):
    (small.root / "dvc.yaml").write_text(
        "# kept\nstages:\n  s:\n    cmd: python -m lib.a\n    deps: [data, lib/d.py, lib/a.py]\n"
    )
    missing, needless = check_deps(small)["s"]
    assert (missing[0], needless) == ("lib/b.py", ["lib/d.py"])
    write_deps(small)
    assert check_deps(small) == {}
    assert (small.root / "dvc.yaml").read_text().startswith("# kept\n")


def test_a_role_that_is_not_named_or_cannot_be_imported_says_so(tmp_path):
    with pytest.raises(SettingsError, match=r"no 'view' in \[tool.lockstep\].*Did you mean 'views'"):
        Project(tmp_path, {"views": []}).modules("view")
    with pytest.raises(
        DefinitionError, match=r"a module cannot be imported in \[tool.lockstep\] views.*No module named 'nowhere'"
    ):
        Project(tmp_path, {"views": ["nowhere.at_all"]}).load("views")
    assert Project(tmp_path, {}).objects("on_demand", OnDemandView) == []  # a project may do without
    (tmp_path / "pyproject.toml").write_text("[tool.lockstep]\nviewz = 'x'\n")
    with pytest.raises(SettingsError, match=r"unknown role 'viewz'.*Did you mean 'views'"):
        project(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.lockstep\n")
    with pytest.raises(SettingsError, match="not TOML"):
        project(tmp_path)
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(SettingsError, match="not inside a Lockstep project"):
        project(tmp_path)


def test_the_command_line_loads_nothing_heavy():
    code = "import sys, json, lockstep.cli, lockstep.run; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"feast", "prefect", "great_expectations", "sklearn", "dvc", "pandas", "matplotlib"} & set(loaded)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from lockstep import agg\n\nx = agg.cuont()\n", "mine.py line 3.*AttributeError.* Did you mean 'count'"),
        ("from lockstep.define import View\nx = View('v', entity=1)\n", "mine.py line 2.*'entity'. Did you mean 'entities'"),
        ("from lockstep import agg\nx = agg.count(day=7)\n", "mine.py line 2.*'day'. Did you mean 'days'"),
        ("from lockstep.define import Featur\n", "mine.py line 1.*cannot import name 'Featur'.* Did you mean 'Feature'"),
        ("import nowhere_at_all\n", "mine.py line 1.*No module named 'nowhere_at_all'. See it whole: python -c \"import mine\""),
        ("total = 1\nx = totl\n", "mine.py line 2.*NameError: name 'totl' is not defined. Did you mean 'total'"),
        ("x = 1 / 0\n", "mine.py line 1.*ZeroDivisionError.* See it whole"),
        ("x = (\n", "mine.py line 1.*SyntaxError"),
        ("from lockstep import agg\nfrom lockstep.define import Feature\n\n\ndef made():\n    return Feature('x', agg.count(days=0))\n\n\nmade()\n",
         r"a window without days in count\(days=0\) of feature x, mine.py line 6: expected"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_users_module_is_told_by_its_own_line_and_the_nearest_name(code, said, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(DefinitionError, match=said):
        Project(tmp_path, {"views": "mine"}).load("views")


def test_a_module_that_is_not_there_is_told_the_nearest(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/household.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(DefinitionError, match=r"No module named 'ours.houshold'. Did you mean 'ours.household'"):
        Project(tmp_path, {"views": "ours.houshold"}).load("views")
