"""Every picture in both styles: sizes, letters, what is told without colours, and what lies in the files."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_cases import every_kind

from probes import Field, Trace, plot_trace
from probes.cli import main
from probes.errors import UserError
from probes.views.pictures.draw import figures
from probes.views.pictures.paper import for_paper
from probes.views.pictures.style import FORMATS, figure, headline, save, style

STEPS = (1, 12)
COLUMN, PAGE = 3.25, 6.75


@pytest.fixture(scope="module", params=STEPS)
def trace(request, tmp_path_factory):
    return Trace.open(every_kind(tmp_path_factory.mktemp("styles") / "t.h5", request.param))


@pytest.fixture(scope="module")
def paper(trace) -> dict[str, Figure]:
    made = dict(figures(trace, style="paper"))
    with style("paper"):
        for one in made.values():
            one.draw_without_rendering()
    return made


def texts(made: Figure) -> list[Text]:
    return [part for part in made.findobj(Text) if part.get_text().strip() and part.get_visible()]


def test_a_figure_is_a_column_or_a_page_wide(paper: dict[str, Figure]) -> None:
    widths = {name: made.get_figwidth() for name, made in paper.items()}
    assert {COLUMN, PAGE} == set(widths.values())
    assert widths["trace"] == COLUMN
    assert widths["surface"] == widths["sharpness"] == PAGE
    for name, made in paper.items():
        assert 1.5 < made.get_figheight() < 5, name
        box = made.get_tightbbox()
        assert box.x0 > -0.03, name
        assert box.y0 > -0.03, name
        assert box.x1 < widths[name] + 0.03, name


def test_letters_are_eight_points_and_serif(paper: dict[str, Figure]) -> None:
    for name, made in paper.items():
        sizes = [text.get_fontsize() for text in texts(made)]
        assert max(sizes) == 8, name
        assert min(sizes) > 5.5, name
        assert {text.get_fontfamily()[0] for text in texts(made)} == {"STIXGeneral"}, name
        assert {text.get_fontweight() for text in texts(made)} <= {"normal", 400}, name


def test_what_belongs_in_a_caption_is_in_the_label(trace, paper: dict[str, Figure]) -> None:
    for name, screen in figures(trace):
        panels = [axes for axes in screen.axes if axes.get_title(loc="left")]
        seen = " ".join(text.get_text() for text in texts(paper[name]))
        for axes in panels:
            assert axes.get_title(loc="left").replace(r"\$", "$") in paper[name].get_label(), name
            for note in axes.texts:
                if note.get_label() == "_note":
                    assert f"({note.get_text()})" in paper[name].get_label(), name
                    assert note.get_text() not in seen, name
        headings = [axes for axes in paper[name].axes if axes.get_title(loc="left")]
        assert len(headings) == (len(panels) if len(panels) > 1 else 0), name
        # a single panel has lost its heading: its axes say what they are
        assert headings or not panels or (panels[0].get_ylabel() or panels[0].get_yticklabels()), name


def test_lines_are_thin_and_told_apart_in_grey(paper: dict[str, Figure]) -> None:
    house = {"#0072b2", "#d55e00", "#009e73", "#6b6b6b"}
    for name, made in paper.items():
        for axes in made.axes:
            assert all(line.get_linewidth() < 1.2 for line in axes.lines if line.get_color() != "white"), name
            named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
            lines = [line for line in named if to_hex(line.get_color()) in house]
            for a, b in itertools.combinations(lines, 2):
                if to_hex(a.get_color()) != to_hex(b.get_color()):
                    looks = [(line.get_linestyle(), line._unscaled_dash_pattern, line.get_marker()) for line in (a, b)]
                    assert looks[0] != looks[1], (name, looks)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    return every_kind(tmp_path_factory.mktemp("long") / "t.h5", 100)


@pytest.mark.parametrize("kind", FORMATS)
def test_files(kind: str, long: Path, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with Trace.open(long) as trace:
        for name, made in figures(trace, ("trace", "density", "surface", "spectrum"), style="paper"):
            with style("paper"):
                data = save(made, tmp_path / f"{name}.{kind}").read_bytes()
            assert len(data) < (600_000 if kind == "svg" else 300_000), (name, len(data))
            width = 72 * (COLUMN if name in ("trace", "density-map") else PAGE)
            if kind == "pdf":
                check_pdf(data, name, width)
            elif kind == "svg":
                assert ET.fromstring(data).attrib["width"] == f"{width:g}pt", name
            else:
                pixels = image.imread(tmp_path / f"{name}.png")
                assert pixels.shape[1] == round(300 * width / 72), name
                assert 0.002 < float((pixels[..., :3].mean(axis=2) < 0.9).mean()) < 0.8, name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert dict(mpl.rcParams) == before


def check_pdf(data: bytes, name: str, width: float) -> None:
    """Letters are whole TrueType fonts inside the file, and only maps are pixels."""
    assert data.startswith(b"%PDF-")
    assert f"/MediaBox [ 0 0 {width:g} ".encode() in data, name
    assert b"/Type3" not in data, name
    assert data.count(b"/FontFile2") == data.count(b"/Type /FontDescriptor") > 0, name
    assert (b"/Subtype /Image" in data) == (name in ("surface", "density-map")), name
    assert b"/Subject" in data, name


def test_many_points_are_pixels(tmp_path: Path) -> None:
    with style("paper"):
        made, (axes,) = figure()
        axes.plot(np.random.default_rng(0).random(20_000))
        axes.set_ylabel("y")
        headline(axes, "Costs $1 and $2", "a note")
        assert save(for_paper(made), tmp_path / "a.pdf").stat().st_size < 100_000
    assert made.get_label() == "Costs $1 and $2 (a note)."


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.h5"
    with Trace.create(path) as trace:
        trace.declare("trace", {"value": Field(), "stderr": Field()})
        trace.record("trace", 0, value=1.0, stderr=0.1)

    def plot(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["plot", str(path), "-o", str(tmp_path / "made"), *words])
        return int(stopped.value.code or 0), *capsys.readouterr()

    status, out, _ = plot("--style", "paper", "--format", "pdf")
    assert (status, out) == (0, f"{tmp_path / 'made' / 't-trace.pdf'}\n")
    first = Path(out.strip()).read_bytes()
    assert first.startswith(b"%PDF")
    assert plot("--style", "paper", "--format", "pdf")[0] == 0
    assert Path(out.strip()).read_bytes() == first  # the same trace, the same bytes
    for words, told in (
        (("--format", "pfd"), "did you mean 'pdf'"),
        (("--style", "print"), "--style is screen or paper"),
    ):
        status, out, err = plot(*words)
        assert status == 2
        assert not out
        assert told in err
        assert len(err.strip().splitlines()) == 1
    with Trace.open(path) as trace, pytest.raises(UserError, match="--format"):
        plot_trace(trace, tmp_path, format="jpg")
