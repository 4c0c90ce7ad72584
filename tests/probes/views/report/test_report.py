"""What a report says, whatever a trace is like: all kinds, live, empty, hostile, several; HTML and Markdown alike."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from paths import ROOT
from report_cases import Elements, every_kind

from probes import Field, Trace, report
from probes.cli import main
from probes.errors import UserError
from probes.instruments.registry import PROBES
from probes.trace.layout import TraceError
from probes.views.report import bundle
from probes.views.report.charts.axes import numbers
from probes.views.report.formulas import mathml
from probes.views.report.html import script_json
from probes.views.report.words import WORDS


def specs(page: Elements):
    return [json.loads(text) for text, _ in page.all("script", type="application/json")]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    return every_kind(tmp_path_factory.mktemp("every") / "t.h5")


@pytest.fixture(scope="module")
def html(traced):
    pytest.importorskip("plotly")
    return report(traced, traced.parent / "page.html", title="A page", note="first\nsecond").read_text()


def test_every_kind_has_a_section(html: str) -> None:
    page = Elements(html)
    sections = {attrs["id"] for _, attrs in page.all("section", **{"class": "kind"})}
    assert sections == {f"about-{kind}" for kind in ("loss", *PROBES, "other")}
    assert {"loss", *PROBES} == set(WORDS)
    ids = [attrs["id"] for _, attrs, _ in page.found if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in page.all("a") if a["href"].startswith("#")} <= set(ids)
    assert page.all("h1")[0][0] == "A page"
    # nothing comes from elsewhere: links are to papers, and only followed by a person
    outer = [
        value
        for _, attrs, _ in page.found
        for key, value in attrs.items()
        if value and "//" in value and key != "content"
    ]
    assert all(re.fullmatch(r"https://arxiv\.org/abs/[\d.]+", url) for url in outer)
    figures = page.all("div", **{"class": "plot"})
    assert len(figures) == len(specs(page)) > 30
    assert all(attrs["role"] == "img" and attrs["tabindex"] == "0" and attrs["aria-label"] for _, attrs in figures)


def test_figures_are_plotlys(html: str) -> None:
    graph = pytest.importorskip("plotly.graph_objects")
    for spec in specs(Elements(html)):
        assert spec["data"]
        graph.Figure(spec)  # raises for a property or a value that plotly does not know


def test_the_numbers_are_those_of_the_trace(html: str, traced: Path) -> None:
    by_anchor = {}
    for name, spec in zip(re.findall(r'<figure id="([^"]+)"', html), specs(Elements(html)), strict=True):
        by_anchor[name] = spec
    with Trace.open(traced) as trace:
        columns = trace["trace"].read()
        line = by_anchor["trace-1"]["data"][0]
        np.testing.assert_allclose(line["y"], columns["value"], rtol=1e-4)
        np.testing.assert_allclose(line["error_y"]["array"], columns["stderr"], rtol=0.05)
        assert (line["x0"] + line["dx"] * np.arange(len(line["y"]))).tolist() == columns["step"].tolist()
        # plotly takes a distance of 0 for 1, so equal numbers are no sequence
        assert all(line.get("dx") != 0 for spec in by_anchor.values() for line in spec["data"])
        sharp = by_anchor["sharpness-1"]["data"]
        np.testing.assert_allclose(sharp[1]["y"], trace["sharpness"]["threshold"])
        assert "2/η" in html
        # the map of the density integrates to one at every step
        heat = next(s["data"][0] for s in by_anchor.values() if s["data"][0]["type"] == "heatmap")
        mass = np.trapezoid(10.0 ** np.array(heat["z"], dtype=float), heat["y"], axis=0)
        np.testing.assert_allclose(mass, 1.0, rtol=0.03)
        csv = unquote(re.search(r'download="trace\.csv" href="data:text/csv;charset=utf-8,([^"]+)"', html)[1])
        head, *rows = [line.split(",") for line in csv.strip().splitlines()]
        assert [float(row[head.index("value")]) for row in rows] == columns["value"].tolist()
    assert "30.0 ± 1.5" in html


def test_warnings_come_before_pictures(html: str) -> None:
    page = Elements(html)
    told = html[: html.index('class="kind"')]
    for words in ("did not converge (2 of 12 steps: 100, 110)", "the data has changed", "vacuous", "error is as large"):
        assert words in told, words
    assert any(attrs.get("class") == "cautions" for _, attrs in page.all("section"))


def test_markdown_has_the_same_numbers(html: str, traced: Path, tmp_path: Path) -> None:
    text = report(traced, tmp_path / "page.md", title="A page", note="first\nsecond").read_text()
    plain = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), text)
    plain = re.sub(r"\\([\\`*_\[\]{}<>#|~$!&+=.)-])", r"\1", plain)
    cells = {text for text, _ in Elements(html).all("td") if text}
    assert len(cells) > 100
    assert {cell for cell in cells if cell not in plain} == set()
    assert text.count("\n## ") == 3 + len(PROBES) + 2
    assert "arxiv.org/abs/2103.00065" in text


@pytest.mark.parametrize("ending", ["html", "md"])
@pytest.mark.parametrize("interactive", [True, False])
def test_a_hostile_trace_is_text(
    ending: str, interactive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if interactive and ending == "html":
        pytest.importorskip("plotly")
    monkeypatch.setattr(bundle, "is_there", lambda: interactive)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`[x](javascript:alert(1))|$\\frac{"
    labels = tuple(f"{evil}{i}" for i in range(3))
    path = every_kind(tmp_path / "t.h5", 3, labels=labels, **{evil: {"deep": evil}, "line": "a\nb\n# c\n\n| d |\n<b>"})
    with Trace.resume(path) as trace:
        name = "<img src=x onerror=alert(1)>"
        trace.declare(name, {"value": Field(units=evil, description=evil)}, settings={"probe": evil, evil: evil})
        trace.record(name, 0, value=1.0)
        trace.record(name, 1, value=2.0)
        trace.event(0, evil[:40], evil)
    text = report(path, tmp_path / f"page.{ending}", title=evil, note=evil).read_text()
    if ending == "md":
        assert "<script" not in text.replace("&#60;", "")
        assert not re.search(r"<(img|b|a)\b", text)
        assert not re.search(r"(?<!\\)\]\(javascript", text)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert all(re.match(r"\|.*\|$", row) for row in rows)
        return
    page = Elements(text)
    scripts = [attrs.get("type") for _, attrs in page.all("script")]
    assert scripts.count(None) == 1
    assert set(scripts) <= {None, "application/json", "text/plain"}
    assert not [tag for tag, attrs, _ in page.found if any(key.startswith("on") for key in attrs)]
    assert not [1 for _, attrs in page.all("img")]
    assert not [href for _, attrs in page.all("a") if (href := attrs["href"] or "").startswith("javascript")]
    for spec in specs(page):
        assert not re.search("<(img|script)", json.dumps(spec))
    assert evil in "".join(t for t, _ in page.all("h1"))


def test_it_is_small_and_loads_little(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    every_kind(tmp_path / "t.h5", 200)
    code = """
import sys
from probes.cli import main
try:
    main(["report", "t.h5", "-o", "page.html"])
finally:
    print("loaded", *{"torch", "matplotlib", "scipy", "plotly", "pandas"} & set(sys.modules))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert run.returncode == 0, run.stderr
    loaded = run.stdout.splitlines()[-1].split()[1:]
    assert loaded == []
    assert (tmp_path / "page.html").stat().st_size < 3_120_000  # of every kind; with half as many it is below 3 MB


def test_a_live_trace_and_one_without_rows(tmp_path: Path) -> None:
    with Trace.create(tmp_path / "t.h5") as trace:
        for ending in ("html", "md"):
            text = report(tmp_path / "t.h5", tmp_path / f"page.{ending}").read_text()
            assert "Nothing has been measured yet" in text
            assert "holds no measurements yet" in text
            assert "still being written" in text
        trace.declare("loss", {"value": Field(), "gradient_norm": Field()})
        assert "was declared and never measured" in report(trace, tmp_path / "page.html").read_text()
        trace.record("loss", 0, value=2.5, gradient_norm=float("nan"))
        text = report(trace, tmp_path / "page.html").read_text()
        assert "One measurement at step 0" in text
        assert ">2.5<" in text


def test_another_process_writes(tmp_path: Path) -> None:
    code = """
import sys, time
from probes import Field, Trace
trace = Trace.create(sys.argv[1])
trace.declare("loss", {"value": Field(), "gradient_norm": Field()})
trace.record("loss", 7, value=1.25, gradient_norm=1.0)
trace.flush()
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "t.h5")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        text = report(tmp_path / "t.h5", tmp_path / "page.md").read_text()
    finally:
        process.kill()
        process.communicate()
    assert "1.25" in text
    assert "still being written" in text


def test_several_traces_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rate in (0.1, 0.2):
        for seed in range(3):
            with Trace.create(tmp_path / f"lr{rate}-{seed}.h5", config={"lr": rate, "seed": seed}, seed=seed) as trace:
                trace.declare("trace", {"value": Field(), "stderr": Field()}, settings={"probe": "CurvatureTrace"})
                for step in range(4):
                    trace.record("trace", step, value=10 * rate + seed + step, stderr=0.1)
    text = report(tmp_path, tmp_path / "page.md").read_text()
    # 1, 2, 3 at lr 0.1: mean 2, standard error 1 / sqrt(3)
    assert "2.0 ± 0.6" in text
    assert "lr=0.1 (3 runs)" in text
    assert "6 runs: compared, not shown one by one" in text
    pytest.importorskip("plotly")
    page = Elements(report(tmp_path, tmp_path / "page.html").read_text())
    (spec,) = specs(page)
    assert len([t for t in spec["data"] if t.get("fill") == "toself"]) == 2
    (mean,) = [t["y"] for t in spec["data"] if t["name"] == "lr=0.2 (3 runs)"]
    assert mean == [3, 4, 5, 6]
    one = report([tmp_path / "lr0.1-0.h5", tmp_path / "lr0.2-0.h5"], tmp_path / "page.md").read_text()
    assert "### lr0.1-0.h5: trace" in one
    monkeypatch.setattr(bundle, "is_there", lambda: False)
    assert len(Elements(report(tmp_path, tmp_path / "page.html").read_text()).all("svg")) == 1


def test_errors_are_one_line(traced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["report", *words])
        told = capsys.readouterr().err
        assert len(told.strip().splitlines()) == 1, told
        return stopped.value.code, told

    assert fails(str(traced), "-o", str(tmp_path / "page.pdf"))[0] == 2
    status, told = fails(str(tmp_path / "none.h5"), "-o", str(tmp_path / "page.html"))
    assert status == 1
    assert "none.h5" in told
    (tmp_path / "bad.h5").write_bytes(b"no trace")
    assert "bad.h5" in fails(str(tmp_path / "bad.h5"), "-o", str(tmp_path / "page.html"))[1]
    (tmp_path / "page.md").write_text("mine")
    assert "--overwrite" in fails(str(traced), "-o", str(tmp_path / "page.md"))[1]
    assert (tmp_path / "page.md").read_text() == "mine"
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(traced), "-o", str(tmp_path / "page.md"), "--overwrite", "--title", "T"])
    assert not stopped.value.code
    assert capsys.readouterr().out == f"{tmp_path / 'page.md'}\n"
    assert (tmp_path / "page.md").read_text().startswith("# T\n")
    with pytest.raises(UserError, match=r"\.html"):
        report(traced, tmp_path / "page")
    with pytest.raises(TraceError):
        report(tmp_path / "none.h5", tmp_path / "page.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError, match="folder"):
        report(traced, tmp_path / "folder.html")


def test_formulas() -> None:
    assert "<mfrac><mn>1</mn><mi>N</mi></mfrac>" in mathml(r"\frac{1}{N}").replace("<mrow>", "").replace("</mrow>", "")
    assert "<munderover><mo>∑</mo>" in mathml(r"\sum_{i=1}^{N} x_i")
    assert "<msubsup>" in mathml(r"x_i^\top")
    for words in WORDS.values():
        assert not words.formula or mathml(words.formula).count("<mrow>") == mathml(words.formula).count("</mrow>")
    for wrong in (r"\nonsense", "x_", "{x", "}"):
        with pytest.raises((ValueError, IndexError)):
            mathml(wrong)


def test_a_script_cannot_be_closed_by_what_is_in_it() -> None:
    given = {"a": "</script><!-- <script> & \u2028"}
    text = script_json(given)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == given


def test_numbers_are_json() -> None:
    assert numbers([1.0, np.nan, np.inf, 0.1234567]) == [1, None, None, 0.12346]
    assert numbers(np.array([[1, 2]])) == [[1, 2]]


def test_importing_it_is_light() -> None:
    check = "import sys\nimport probes\nprobes.report\n"
    check += "assert not {'torch', 'plotly', 'matplotlib'} & set(sys.modules), set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, timeout=120)
