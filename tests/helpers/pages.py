"""Pages in Markdown whose code is run as a reader would run it, block by block, in one folder.

```python              runs, in one namespace for the whole page
```python title=x.py   is written to x.py
```console             commands of `landscape`, run one by one
```text                what the block before it printed: the same words, numbers within 5 %
```sh                  takes minutes or installs: its modules, targets and extras exist
"""

import contextlib
import io
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from paths import ROOT

from probes.cli import main

FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?P<language>[\w{}-]*)[ ]*(?P<rest>[^\n]*)\n(?P<code>.*?)^(?P=ticks)[ ]*$", re.M | re.S
)
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


@dataclass(frozen=True)
class Block:
    """Code on a page: its language, its title or "", the code, the line of its fence."""

    language: str
    title: str
    code: str
    line: int


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            found["language"],
            found["rest"].partition("title=")[2].strip(),
            found["code"],
            text[: found.start()].count("\n") + 1,
        )
        for found in FENCE.finditer(text)
    ]


def same(said: str, printed: str) -> None:
    """Words are equal, numbers nearly: rounding differs between machines."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", said).split(), f"printed:\n{printed}\nthe page:\n{said}"
    found, expected = ([float(x.replace("−", "-")) for x in NUMBER.findall(text)] for text in (printed, said))
    assert found == pytest.approx(expected, rel=0.05, abs=1e-6), f"printed:\n{printed}\nthe page:\n{said}"


def run(page: Path, folder: Path, names: dict[str, object]) -> None:
    """Runs a page in the current folder, which is `folder`; names is what it takes for granted."""
    names.setdefault("__name__", "page")
    path, modules = list(sys.path), {block.title.removesuffix(".py") for block in blocks(page) if block.title}
    sys.path.insert(0, str(folder))
    try:
        _run(page, folder, names)
    finally:  # another page may have a file of the same name
        sys.path[:] = path
        for name in modules:
            sys.modules.pop(name, None)


def _run(page: Path, folder: Path, names: dict[str, object]) -> None:
    printed = None  # nothing has run: a text is just a text
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python" and block.title.endswith(".py"):
            (folder / block.title).write_text(block.code)
        elif block.language == "python":
            printed = execute(block.code, names, str(page), block.line)
        elif block.language == "console":
            printed = "".join(command(line, where) for line in block.code.splitlines())
        elif block.language == "text":
            if printed is not None:
                same(block.code, printed)
        elif block.language == "sh":
            check(block.code, where)
        else:
            assert block.language.startswith("{"), f"{where}: a block says what it is: python, console, text or sh"


def execute(code: str, names: dict[str, object], page: str, line: int) -> str:
    """What a block prints; a traceback shows the line of the page."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\n" * line + code, page, "exec"), names)
    return out.getvalue()


def command(line: str, where: str) -> str:
    """What a command of `landscape` prints; it must end well and say something."""
    words = expanded(line.partition("  #")[0].removeprefix("$ ").split())
    assert words[0] == "landscape", f"{where}: {line}"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main(words[1:])
        except SystemExit as end:
            status = end.code
    assert not status, f"{where}: {line}\n{out.getvalue()}{errors.getvalue()}"
    assert out.getvalue().strip(), f"{where}: {line} printed nothing"
    return out.getvalue()


def expanded(words: list[str]) -> list[str]:
    """Globs as a shell expands them."""
    return [str(one) for word in words for one in (sorted(Path().glob(word)) if "*" in word else [word])]


def check(code: str, where: str) -> None:
    """Commands that the tests do not run name what exists."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for target in re.findall(r"^make ([\w-]+)", code, re.M):
        assert target in targets, f"{where}: make {target}"
    for module in re.findall(r"-m ((?:runs|probes)[\w.]*)", code):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{where}: {module}"
    for named in re.findall(r"\[([\w,]+)\]", code):
        assert set(named.split(",")) <= extras, f"{where}: {named}"
