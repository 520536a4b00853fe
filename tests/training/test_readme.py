"""The page on failures says what is so: every row has its tests, and they exist."""

import ast
import pathlib
import re

import pytest

from transformer_jax.training import exits, goodput, watchdog

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "transformer_jax" / "training" / "README.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| event")]
LINK = re.compile(r"\[(test_\w+)\]\(\.\./\.\./(tests/[\w/]+\.py)\)")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_row_names_tests_that_exist(row):
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    links = LINK.findall(cells[4])
    assert len(cells) == 5 and links and len(links) == len(cells[4].split(", "))
    for name, path in links:
        functions = {
            node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, f"{path}::{name}"


def test_the_failures_that_were_promised_are_there():
    events = " ".join(row.split("|")[1] for row in ROWS)
    for event in ("SIGTERM", "out of memory", "NaN", "hang", "dead host", "full disk", "corrupt"):
        assert event in events


def test_numbers_on_the_page_are_those_of_the_code():
    text = PAGE.read_text()
    known = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    said = {int(code) for row in ROWS for code in re.findall(r"\b\d+\b", row.split("|")[3])}
    assert said and said <= known
    assert "after 75, 134, 137 and 143 only" in text and exits.RESTARTABLE == {75, 134, 137, 143}
    assert watchdog.FLOOR == 120 and "at least 2 minutes" in text and watchdog.PATIENCE == 3600 and "an hour" in text
    assert goodput.FILE in text


def test_links_to_other_pages_resolve():
    for target in re.findall(r"\]\(([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
