"""Data Docs: Great Expectations' pages with every rule and its status, opening offline, of the present results."""

import html
import re
import shutil
from pathlib import Path

import pytest

from lockstep.data_docs import INDEX, docs_pending, write_docs
from lockstep.files import file_hash
from lockstep.landings import write_landings
from lockstep.project import Project
from tests.code.test_validate import LINES, D, Shop
from tests.conftest import ROOT

NAMED = LINES.replace("columns:\n", 'columns:\n  name: {type: string, regex: {match: "[a-z]+(?:[$])?", then: flag}}\n')


def make(folder):
    """A project whose stage has run: one line breaks each of four rules, one of them in words that look like HTML."""
    folder.mkdir()
    shop = Shop(folder, NAMED)
    shop.land("items", D[0], {"item": 1})
    shop.land(
        "lines", D[0], {}, {"basket": 2, "price": -77777, "pieces": None, "item": 3, "name": "<em>$x</em>&lt;i&gt;"}
    )
    shop.validate()
    (folder / "out").rename(folder / "artifacts")
    write_landings(
        [x._replace(byte_hash=file_hash(folder / "data" / x.path)) for x in shop.landings], folder / "landings.csv"
    )
    shutil.copy(ROOT / "params.yaml", folder)
    return Project(folder, {"contracts": "contracts"}), shop.contracts


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    project, contracts = make(tmp_path_factory.mktemp("docs") / "project")
    write_docs(project)
    return project, contracts


def page(project, name="lines.v1"):
    return (project.root / INDEX.parent / f"{name}.html").read_text(encoding="utf-8")


def text(row):
    """What a browser shows of a piece of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", row)).split())


def rows(project):
    """Each rule's row in the page of lines: whether it is kept, and its words."""
    found = {}
    for piece in re.split(r'(?=<i\s+class="fas [^"]*")', page(project))[2:]:  # the first is that of the whole suite
        name = re.search(r"<strong>([^<]*)</strong>", piece)
        found[html.unescape(name[1])] = ("fa-check-circle" in piece[:60], text(piece))
    return found


def test_every_rule_of_the_contract_stands_in_the_page_of_its_table_with_its_status(built):
    project, contracts = built
    found = rows(project)
    assert set(found) == {rule.name for rule in contracts["lines"].rules}
    broken = {name for name, (kept, _) in found.items() if not kept}
    assert broken == {"name.regex", "price.range", "pieces.not_null", "item_known"}
    said = found["price.range"][1]
    assert said.startswith("price.range Expect price between 0 and ... else quarantine")
    assert "1 unexpected values found. 50% of 2 total rows." in said
    assert "Sampled Unexpected Values -77777" in said


def test_the_first_page_tells_each_table_and_what_is_broken_in_it(built):
    first = page(built[0], "index")
    assert [text(row) for row in first.split("<tr>")[2:]] == [
        "items v1 6 none",
        "lines v1 19 name.regex 1 flag price.range 1 quarantine pieces.not_null 1 impute item_known 1 flag",
    ]
    assert re.findall(r"fa-[a-z-]+", first.split("<tbody>")[1]) == ["fa-check-circle", "fa-times"]


def test_pages_load_nothing_run_nothing_and_lead_nowhere_but_to_each_other(built):
    folder = built[0].root / INDEX.parent
    names = sorted(p.name for p in folder.glob("*.html"))
    assert names == ["index.html", "items.v1.html", "lines.v1.html"]
    for name in names:
        whole = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img|iframe)\b|https?://|@import|url\(|onclick", whole)
        assert "default-src 'none'; style-src 'unsafe-inline'" in whole
        for link in re.findall(r'href="([^"]*)"', whole):
            target = link[1:]
            assert f'id="{target}"' in whole if link[0] == "#" else link == "../report.html" or link in names


def test_every_class_of_a_status_is_drawn_by_the_style_sheet(built):
    css = (Path(ROOT) / "lockstep/data_docs.css").read_text(encoding="utf-8")
    icons = set(re.findall(r"\bfa-[a-z-]+", page(built[0])))
    assert icons
    assert all(f".{icon}::before" in css for icon in icons)


def test_values_and_patterns_that_look_like_html_are_shown_as_they_are(built):
    whole = page(built[0])
    assert "<em>" not in whole
    said = rows(built[0])["name.regex"][1]
    assert "Expect name like [a-z]+(?:[$])?" in said
    assert "Sampled Unexpected Values <em>$x</em>&lt;i&gt;" in said


def test_pages_follow_the_stage_and_its_results_are_judged_again_only_where_they_are_gone(tmp_path):
    project, _ = make(tmp_path / "project")
    assert docs_pending(project)
    assert write_docs(project) == INDEX
    assert not docs_pending(project)
    first = page(project)
    kept = project.root / "state/expectations/lines.v1.json"
    kept.write_text(kept.read_text(encoding="utf-8").replace("-77777", "-88888"), encoding="utf-8")
    write_docs(project)
    assert page(project) == first
    (project.root / INDEX).unlink()
    assert docs_pending(project)
    write_docs(project)
    assert page(project) == first.replace("-77777", "-88888")  # rendered of what the stage kept
    path = project.root / "artifacts/validation.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert docs_pending(project)
    write_docs(project)
    assert page(project) == first  # of a stage that did not run here
