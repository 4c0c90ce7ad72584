"""The page where there is no plotly: its pictures are in it, and it asks for nothing."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from browser import opened
from report_cases import Elements, every_kind

from probes import report


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("probes.views.report.bundle.is_there", lambda: False)
        return report(every_kind(folder / "t.h5"), folder / "page.html")


def test_the_pictures_are_in_the_page(static: Path) -> None:
    text = static.read_text()
    page = Elements(text)
    assert len(page.all("svg")) > 15
    assert not page.all("script", type="text/plain")
    assert "pip install 'landscape-engine[report]'" in " ".join(t for t, _ in page.all("code"))
    ids = [attrs["id"] for _, attrs, _ in page.found if attrs.get("id")]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | {
        value[1:]
        for _, attrs, _ in page.found
        for key, value in attrs.items()
        if key == "xlink:href" and value[0] == "#"
    }
    assert used <= set(ids)
    assert len(text) < 3e6
    assert "$" not in "".join(t for t, _ in page.all("text"))  # formulas of matplotlib's own ticks are set


def test_it_asks_for_nothing(static: Path, tmp_path: Path) -> None:
    with opened(static, tmp_path, width=390) as tab:
        assert tab.requests() == [static.resolve().as_uri()]
        assert tab.value("document.documentElement.scrollWidth") <= 390
        assert tab.value("document.querySelectorAll('figure > svg').length") > 15
        png = tab.call("Page.captureScreenshot", format="png")["data"]
        assert len(base64.b64decode(png)) > 5000
        assert tab.complaints() == []
