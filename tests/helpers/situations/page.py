"""The page docs/works-with.md, written from the table.

PYTHONPATH=.:tests/helpers python -m situations.page
"""

from pathlib import Path

from situations import SITUATIONS

PATH = Path(__file__).parents[3] / "docs" / "works-with.md"

HEAD = """# What it works with

{total} situations that people come with, each tried by the tests against an oracle: value, gradient and a Hessian
product against double backward written out in plain torch, or against central differences of the gradient where double
backward itself is wrong. {right} are right, to the relative difference that is stated; {refused} are refused in one
line, whose words are given. Written by `python -m situations.page` from `tests/helpers/situations`; a test says that
this page is what the table says.
"""


def page() -> str:
    """The text of the page."""
    refused = sum(bool(situation.refused) for situation in SITUATIONS)
    parts = [HEAD.format(total=len(SITUATIONS), right=len(SITUATIONS) - refused, refused=refused)]
    for group in dict.fromkeys(situation.group for situation in SITUATIONS):
        parts.append(f"\n## {group}\n\n| situation | | checked by |\n|---|---|---|\n")
        for one in SITUATIONS:
            if one.group == group:
                status = f'refused: "{one.refused}"' if one.refused else f"right to {one.tolerance:.0e}"
                how = "the error's words" if one.refused else one.check
                parts.append(f"| {one.name} | {status} | {how} |\n".replace("to 1e-0", "to 1e-"))
    return "".join(parts)


if __name__ == "__main__":
    PATH.write_text(page())
