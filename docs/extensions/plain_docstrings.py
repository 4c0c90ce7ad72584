"""Docstrings as they are written here, in plain text, turned into reStructuredText.

Sections (`Args:`, `Raises:`, `Example:`, ...) become headings with lists; `code` gets its double backquotes; what
reStructuredText would take for markup (|x|, *, a name's last _) is escaped; an indented paragraph stays as it is.
"""

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Notes):$")
ENTRY = re.compile(r"^(\*{0,2}[\w.]+(?:\[[^\]]*\])?(?:, \*{0,2}[\w.]+)*): +(.*)$")
CODE = re.compile(r"(`+)(.+?)\1", re.S)
BULLET = re.compile(r"^(?:[-*] |\d+\. )")


def escape(text: str) -> str:
    """Text outside of code, safe from markup."""
    return re.sub(r"([\\*|_])", r"\\\1", text)


def inline(text: str) -> str:
    """One paragraph: its code kept, the rest escaped."""
    parts, end = [], 0
    for found in CODE.finditer(text):
        parts += [escape(text[end : found.start()]), f"``{' '.join(found.group(2).split())}``"]
        # a letter right after code would keep reStructuredText from seeing its end
        parts.append("\\ " if re.match(r"[\w(]", text[found.end() : found.end() + 1]) else "")
        if found.start() and re.match(r"[\w)]", text[found.start() - 1]):
            parts[-3] += "\\ "
        end = found.end()
    return "".join(parts) + escape(text[end:])


def indent(line: str) -> int:
    """How many spaces a line begins with."""
    return len(line) - len(line.lstrip())


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines without an empty one, and a new one for each bullet."""
    held: list[str] = []
    for line in [*lines, ""]:
        if not line.strip() or (held and BULLET.match(line)):
            if held:
                yield held
            held = []
        if line.strip():
            held.append(line)


def body(lines: list[str]) -> Iterator[str]:
    """Paragraphs of a section or of the text before the first one."""
    for found in paragraphs(lines):
        if found[0].startswith(">>> "):
            yield from [*found, ""]
        elif indent(found[0]):
            yield from ["::", "", *(f"    {line}" for line in found), ""]
        elif BULLET.match(found[0]):
            mark, _, rest = found[0].partition(" ")
            yield from [f"{mark} {inline(' '.join([rest, *(line.strip() for line in found[1:])]))}", ""]
        else:
            yield from [inline(" ".join(line.strip() for line in found)), ""]


def entries(lines: list[str]) -> Iterator[str]:
    """What stands under Args, Attributes and Raises: a list where names come first, else a paragraph."""
    items: list[str] = []
    for line in lines:
        if line.strip() and (not indent(line) or not items):
            items.append(line.strip())
        elif line.strip():
            items[-1] += f" {line.strip()}"
    named = [ENTRY.match(item) for item in items]
    if not all(named):
        yield from [inline(" ".join(items)), ""]
        return
    for item in named:
        if item:
            yield from [f"- **{escape(item.group(1))}**: {inline(item.group(2))}", ""]


def converted(lines: list[str]) -> list[str]:
    """A docstring, its common indentation removed, as reStructuredText."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        found = SECTION.match(line)
        if found:
            sections.append((found.group(1), []))
        elif sections[-1][0] and line.strip() and not indent(line):
            sections.append(("", [line]))  # text after a section
        else:
            sections[-1][1].append(line)
    out: list[str] = []
    for name, inside in sections:
        if name:
            margin = min((indent(line) for line in inside if line.strip()), default=0)
            inside = [line[margin:] for line in inside]
            out += [f"**{name}**", ""]
        out += [*(entries if name in ("Args", "Attributes", "Raises") else body)(inside)]
    return out


def process(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Replaces the lines of a docstring in place, as autodoc asks for."""
    # a number has the docstring of its type
    lines[:] = [] if what == "data" and isinstance(thing, int | float | str | tuple) else converted(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the conversion."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
