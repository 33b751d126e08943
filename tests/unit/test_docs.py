"""The pages lead where they say: links and anchors are there, each page is found from the map."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_DOCS = _ROOT / "docs"
_PAGES = sorted(
    [
        *(_ROOT / "README.md", _ROOT / "CHANGELOG.md"),
        *_DOCS.rglob("*.md"),
        *_ROOT.glob("models/*/*.md"),
    ]
)
_CODE = re.compile(r"^(```|~~~).*?^\1[^\S\n]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
_USED = re.compile(r"\]\[([^\]]+)\]")
_DEFINED = re.compile(r"^\[([^\]]+)\]:", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1[^\S\n]*$", re.MULTILINE | re.DOTALL)
_OWN_ANCHOR = re.compile(r'<a id="([^"]+)">')
_ELSEWHERE = re.compile(r"^[a-z][a-z+.-]*:", re.IGNORECASE)


def _links(page: Path) -> list[str]:
    """Return the targets of a page's links that stay within the repository."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    found = [*_INLINE.findall(text), *_REFERENCE.findall(text)]
    return [one for one in found if not _ELSEWHERE.match(one)]


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Return what `#...` may name: headings as the forges spell them, and anchors of our own."""
    text = page.read_text(encoding="utf-8")
    slugs = [_slug(one) for one in _HEADING.findall(_FENCED.sub("", text))]
    seen: Counter[str] = Counter()
    names = []
    for slug in slugs:
        names.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset([*names, *_OWN_ANCHOR.findall(text)])


def _slug(heading: str) -> str:
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def _broken(page: Path, root: Path = _ROOT) -> Iterator[str]:
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and target.is_relative_to(root)
        if not is_there or (anchor and anchor not in _anchors(target)):
            yield link


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(_broken(page)) == []
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    assert set(_USED.findall(text)) == set(_DEFINED.findall(text))


def test_every_page_is_found_from_the_map_and_the_map_from_the_readme() -> None:
    assert "docs/index.md" in _links(_ROOT / "README.md")
    reached: set[Path] = set()
    ahead = [_DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            linked = ((page.parent / one.partition("#")[0]).resolve() for one in _links(page))
            ahead += [one for one in linked if one.suffix == ".md" and one.is_relative_to(_DOCS)]
    assert reached == set(_DOCS.rglob("*.md"))


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`\n\n# One two\n\n[a](#one-two-1) [b](#one-two-2) [c](gone.md) "
        "[d](https://example.org/gone.md) `[e](gone.md)`\n\n```\n[f](gone.md)\n```\n",
        encoding="utf-8",
    )
    assert list(_broken(page, tmp_path)) == ["#one-two-2", "gone.md"]
