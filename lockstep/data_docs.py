"""Great Expectations' own Data Docs of the contracts, as pages that open offline: for people, no stage's output.

As shipped, their pages fetch seventeen scripts and styles from elsewhere, without which the statuses are blank
(https://github.com/great-expectations/great_expectations/issues/994). Here its renderers make the content, and one page
and one style sheet of ours stand around it; a content security policy lets a browser load nothing and run nothing.
"""

from __future__ import annotations

import html
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.contract import load_contracts
from lockstep.files import file_hash, read_json, write_text
from lockstep.landings import read_landings
from lockstep.project import Project
from lockstep.release import read_releases
from lockstep.validate import validate

__all__ = ["INDEX", "docs_pending", "render", "write_docs"]

INDEX = Path("state/data_docs/index.html")
_KEPT = Path("state/expectations")
_OF = "of"  # beside results and pages: the hash of the validation.json that they tell of


def docs_pending(project: Project) -> bool:
    """Return whether the pages are missing, or of another ``artifacts/validation.json``."""
    return not (project.root / INDEX).is_file() or not _is_of(project, INDEX.parent)


def write_docs(project: Project) -> Path:
    """Render the pages of the present results, unless they are there; return the first one's path below the project.

    The stage keeps what Great Expectations said in ``state/``; where DVC restored it, the rules are judged again.
    """
    if docs_pending(project):
        kept, to = project.root / _KEPT, project.root / INDEX.parent
        if not _is_of(project, _KEPT):
            _judge_again(project, kept)
        pages = render(read_json(path) for path in sorted(kept.glob("*.json")))
        shutil.rmtree(to, ignore_errors=True)
        for name, text in pages.items():
            write_text(text, to / name)
        write_text(file_hash(project.root / "artifacts/validation.json"), to / _OF)
    return INDEX


def render(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return pages by name: ``index.html``, and one for each suite's result as it was kept."""
    import lockstep.gx_statistics  # noqa: F401 - it imports Great Expectations quietly and has expectations of ours

    # isort: split
    from great_expectations.render.view import DefaultJinjaPageView

    here = Path(__file__).parent
    view = DefaultJinjaPageView(custom_views_directory=str(here))
    page, css = view.env.get_template("data_docs.html"), (here / "data_docs.css").read_text(encoding="utf-8")
    pages, suites = {}, []
    for result in results:
        table, _, version = result["suite_name"].partition(" ")
        suite = {"name": result["suite_name"], "page": f"{table}.{version}.html", "success": result["success"]}
        suites.append({**suite, "rules": len(result["results"]), "broken": [*_broken(result["results"])]})
        pages[suite["page"]] = page.render(css=css, **_document(result, table))
    pages["index.html"] = page.render(css=css, page_title="Data Docs", suites=suites)
    return pages


def _broken(results: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield name, action and rows of each rule that some rows break; of a statistic, what was observed."""
    for one in results:
        if not one["success"]:
            meta, found = one["expectation_config"]["meta"], one["result"]
            rows = found.get("unexpected_count", found.get("observed_value"))
            yield {
                "name": meta["rule"],
                "then": meta["then"],
                "rows": f"{rows:,}" if isinstance(rows, int) else f"{rows:.4g}",
            }


def _document(result: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Return what Great Expectations renders of a result, without clocks, ids and links to pages that are not there."""
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    plain = {**_escaped(result), "meta": {"batch_spec": {"data_asset_name": table}}}
    for one in plain["results"]:
        config = one["expectation_config"]
        rule, then = config["meta"]["rule"], config["meta"]["then"]
        config["description"] = (
            f"<strong>{rule}</strong> {config['description']} <span class='badge'>else {then}</span>"
        )
    loaded: ExpectationSuiteValidationResult = ExpectationSuiteValidationResultSchema().load(plain)
    document: dict[str, Any] = ValidationResultsPageRenderer(run_info_at_end=True).render(loaded).to_json_dict()
    *document["sections"], _ = document["sections"]  # the last one tells of the run
    header = document["sections"][0]["content_blocks"][0]
    del header["subheader"]["string_template"]["styling"]["params"]["expectation_suite_name"]
    return {**document, "page_title": f"Data Docs: {result['suite_name']}"}


def _escaped(value: Any) -> Any:
    """Escape all text: Great Expectations puts values of rows and patterns of rules into its pages as they are."""
    if isinstance(value, str):
        return html.escape(value, quote=False).replace("$", "&#36;")
    if isinstance(value, dict):
        return {key: _escaped(v) for key, v in value.items()}
    return [_escaped(v) for v in value] if isinstance(value, list) else value


def _is_of(project: Project, folder: Path) -> bool:
    told = project.root / folder / _OF
    return told.is_file() and told.read_text(encoding="utf-8") == file_hash(project.root / "artifacts/validation.json")


def _judge_again(project: Project, kept: Path) -> None:
    """Run the stage's function beside its outputs, which stay as they are."""
    root = project.root
    contracts, landings = load_contracts(project.folder("contracts")), read_landings(root / "landings.csv")
    with tempfile.TemporaryDirectory(prefix="lockstep-docs-") as folder:
        validate(
            root / "data",
            landings,
            contracts,
            project.settings.clock,
            Path(folder),
            releases=read_releases(root / "releases.csv"),
            profiles=project.folder("contracts"),
            keep=kept,
        )
    write_text(file_hash(root / "artifacts/validation.json"), kept / _OF)
