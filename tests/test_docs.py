"""The documentation: its code runs as printed, no link is dead, no cell of a table is a paragraph."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pages import FENCE, PAGES, blocks, name_of, run
from paths import ROOT
from processes import on_ranks
from settings_of_pages import SETTINGS

LINK = re.compile(r"(?<!`)!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
# run by tests of their own, which start several processes
ELSEWHERE = {"docs/ranks.md", "docs/sharded.md", "docs/sweeps.md"}
# run when the documentation is built
BUILT = {"docs/tour.md"}


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name_of)
@pytest.mark.filterwarnings("default")
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if name_of(page) in ELSEWHERE | BUILT:
        assert page.is_file()
        return
    monkeypatch.chdir(tmp_path)
    run(page, tmp_path, SETTINGS.get(name_of(page), dict)())
    for name in re.findall(r"savefig\(\"(.*?)\"\)", page.read_text()):
        # drawn again by `python tests/helpers/draw.py PAGE`
        assert (page.parent / name).stat().st_size > 5_000
        assert f"]({name})" in prose(page)


def test_the_code_for_sharded_models_runs_on_two_ranks(tmp_path):
    for whole, size, own in on_ranks("sharded_page:vectors", 2, tmp_path):
        assert whole == size == 84
        assert 0 < own < size


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """As code hosts make them from headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {one.strip().replace(" ", "-") for one in kept}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_dead(page):
    for target in LINK.findall(prose(page)):
        address = urlsplit(target)
        if address.scheme:
            assert address.scheme == "https", target
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", address.netloc), target
            continue
        there = (page.parent / address.path).resolve() if address.path else page
        assert there.exists(), f"{name_of(page)}: {target}"
        assert there.is_relative_to(ROOT), target
        if address.fragment:
            assert address.fragment in anchors(there), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_cell_is_no_paragraph(page):
    for line in prose(page).splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            assert all(len(cell.strip()) <= 120 for cell in cells), line
