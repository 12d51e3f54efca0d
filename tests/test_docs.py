"""Files and objects that the documents name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
FOLDERS = ("state", "model", "ops", "stream", "tests", "docs", "examples")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_object_of_the_walks_stands_in_the_file_beside_it() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    pairs = re.findall(r"`(\w+)(?:\.(\w+))?`\s+\(`((?:state|model|ops|stream)/[\w./]+\.py)`\)", page)
    assert len(pairs) > 15
    for name, member, path in pairs:
        source = (ROOT / path).read_text()
        assert re.search(rf"\b(class|def) {name}\b", source), f"{name} is not in {path}"
        assert not member or f"def {member}" in source, f"{name}.{member} is not in {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
