"""Links between the pages of the documentation lead to a file, and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Other files name pages from the root, as in "docs/runbook.md#store-down".
OTHERS = [
    path
    for folder in ("config", "deploy", "templates", "waitroom")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".pyc", ".so")
]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(link: str, folder: Path, page: Path) -> bool:
    """Say whether a link in a page leads nowhere; ``folder`` is what its path is relative to."""
    path, _, anchor = link.partition("#")
    target = (folder / path).resolve() if path else page
    return not target.exists() or (bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if broken(link, page.parent, page)]


def test_pages_that_other_files_name_exist() -> None:
    named = [
        (path, link)
        for path in OTHERS
        for link in re.findall(
            r"\bdocs/(?:[a-z-]+/)?[a-z-]+\.md(?:#[\w-]+)?", path.read_text(encoding="utf-8", errors="ignore")
        )
    ]
    assert named
    assert not [(path, link) for path, link in named if broken(link, ROOT, path)]
