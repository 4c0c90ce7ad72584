"""The page in a real browser: nothing is asked of the network, every figure is drawn, hover and keys work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Tab, opened
from report_cases import every_kind

from probes import report

CASES = {"desk": (1280, False), "phone": (390, True)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("page")
    return report(every_kind(folder / "t.h5", 5), folder / "page.html", note="<b>ours</b>")


@pytest.mark.parametrize("case", CASES)
def test_in_a_browser(case: str, page: Path, tmp_path: Path) -> None:
    width, dark = CASES[case]
    with opened(page, tmp_path, width=width, dark=dark) as tab:
        assert tab.requests() == [page.resolve().as_uri()]
        plots = tab.value("document.querySelectorAll('figure > .plot').length")
        assert plots > 30
        assert tab.value("document.querySelectorAll('.plot.drawn .main-svg').length") >= plots
        drawn = "'.trace, .heatmaplayer image, .contourlayer path, .gl-container canvas'"
        empty = f"[...document.querySelectorAll('.plot')].filter(p => !p.querySelector({drawn})).length"
        assert tab.value(empty) == 0
        assert tab.value("document.documentElement.scrollWidth") <= width
        # the mouse
        place = tab.value(
            "(() => { const p = document.querySelector('#trace-1 .plot'); p.scrollIntoView({block: 'center', behavior: "
            "'instant'}); const b = p.querySelector('.points path').getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for x in (place[0] - 3, place[0]):
            tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=place[1])
        tab.value("new Promise(go => setTimeout(go, 400))")
        hover = "[...document.querySelectorAll('#trace-1 .hoverlayer text')].map(t => t.textContent).join(' ')"
        assert "30 ± 1.5" in tab.value(hover)
        # the keys
        tab.value("document.querySelector('#trace-1 .plot').focus()")
        for _ in range(2):
            for kind in ("keyDown", "keyUp"):
                tab.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
        tab.value("new Promise(go => setTimeout(go, 300))")
        assert "10" in tab.value("document.getElementById('say').textContent")
        labels = tab.value("[...document.querySelectorAll('[role=img]')].map(p => p.getAttribute('aria-label'))")
        assert any("30.0 ± 1.5" in label for label in labels)
        if dark:
            assert min(luminances(tab)) > 0.1
        printed(tab)
        assert tab.complaints() == []


def luminances(tab: Tab) -> Iterator[float]:
    """Of every line that is drawn, as WCAG 2 defines it."""
    strokes = tab.value("[...document.querySelectorAll('.js-line')].map(p => getComputedStyle(p).stroke)")
    for stroke in set(strokes):
        parts = [int(part) / 255 for part in re.findall(r"\d+", stroke)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        yield float(np.dot([0.2126, 0.7152, 0.0722], linear))


def printed(tab: Tab) -> None:
    """On paper everything lies within its width, all is open; afterwards the page is as it was."""
    shape = (
        "[...document.querySelectorAll('.plot')].map(p => [p.clientWidth, p.querySelector('.main-svg').clientWidth])"
    )
    are_open = "[...document.querySelectorAll('details')].map(d => d.open)"
    before, folded = tab.value(shape), tab.value(are_open)
    tab.value("window.dispatchEvent(new Event('beforeprint'))")
    tab.value("new Promise(go => setTimeout(go, 300))")
    widths = tab.value(shape)
    assert all(place == drawn for place, drawn in widths)
    assert {place for place, _ in widths} == {338, 700}
    edges = "[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right)"
    assert max(tab.value(edges)) < 715  # A4 has room for 718, Letter for 739
    assert all(tab.value(are_open))
    tab.value("window.dispatchEvent(new Event('afterprint'))")
    tab.value("new Promise(go => setTimeout(go, 300))")
    assert tab.value(are_open) == folded
    assert tab.value(shape) == before


def test_a_hostile_trace_runs_nothing(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    evil = "</script><img src=x onerror=window.hit=1><script>window.hit=1</script>"
    labels = tuple(f"{evil}{i}%{{x}}$\\frac{{" for i in range(3))
    path = every_kind(tmp_path / "t.h5", 4, labels=labels, **{evil: evil, "b": "<a href='javascript:hit=1'>"})
    page = report(path, tmp_path / "page.html", title=evil, note=evil)
    with opened(page, tmp_path) as tab:
        assert tab.value("window.hit") is None
        assert tab.value("document.querySelectorAll('main img, .plot a[href], svg a').length") == 0
        assert tab.requests() == [page.resolve().as_uri()]
        assert tab.value("document.querySelector('h1').textContent") == evil
        assert tab.value("document.querySelector('#updates-1 .legendtext').textContent").startswith(
            "</script><img src=x"
        )
        assert tab.complaints() == []
