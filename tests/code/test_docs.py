"""Pages whose code is run, and whose tables are what it prints."""

import contextlib
import io
import re
from pathlib import Path

import polars as pl
import pytest

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(python|yaml)\n(.*?)^```\n", re.M | re.S)


@pytest.mark.parametrize("page", ["contracts.md", "how-a-feature-is-computed.md", "quarantine.md", "versions.md"])
def test_the_code_of_a_page_runs_and_prints_the_tables_that_follow_it(page, tmp_path, monkeypatch):
    text, names, printed = (DOCS / page).read_text(encoding="utf-8"), {}, 0
    monkeypatch.chdir(tmp_path)
    with pl.Config():  # the page sets options for itself
        for block in FENCE.finditer(text):
            kind, code = block.groups()
            if kind == "yaml":  # a file that names itself in its first line
                file = tmp_path / code.splitlines()[0].removeprefix("# ")
                file.parent.mkdir(exist_ok=True)
                file.write_text(code, encoding="utf-8")
                continue
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(code, page, "exec"), names)
            if said.getvalue():
                printed += 1
                following = text[block.end() :].strip().split("\n\n")[0]
                assert said.getvalue().strip() == following
    assert printed == text.count("print(")
