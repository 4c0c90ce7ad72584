r"""Formulas: the little of TeX that the report's own formulas use, as MathML, which browsers draw by themselves.

Commands for letters and signs, `\frac{}{}`, `\text{}`, `^` and `_` with a group or a single sign. What is not known is
an error of whoever wrote the formula, and raises `ValueError`.
"""

from __future__ import annotations

import re
from html import escape

_SIGNS = {
    "alpha": "α",
    "beta": "β",
    "eta": "η",
    "gamma": "γ",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "rho": "ρ",
    "sigma": "σ",
    "theta": "θ",
    "tau": "τ",
    "phi": "φ",
    "partial": "∂",
    "Sigma": "Σ",
    "Delta": "Δ",
    "nabla": "∇",
    "ell": "ℓ",
}
_OPERATORS = {
    "sum": "∑",
    "le": "≤",
    "ge": "≥",
    "approx": "≈",
    "to": "→",
    "in": "∈",
    "cdot": "·",
    "lVert": "‖",
    "colon": ":",
    "rVert": "‖",
    "langle": "⟨",
    "rangle": "⟩",
    "lvert": "|",
    "rvert": "|",
    "dagger": "†",
    "top": "⊤",
    "star": "⋆",
    "pm": "±",
    "mid": "∣",
}
_FENCES = {"lVert", "rVert", "lvert", "rvert", "langle", "rangle"}
_FUNCTIONS = {"max", "min", "cos", "exp", "log", "tr", "inf"}
_LIMITS = {"<mo>∑</mo>", "<mi>max</mi>", "<mi>min</mi>"}  # with what belongs to them above and below, not beside
_TOKEN = re.compile(r"\\[A-Za-z]+|\\[,{}]|[{}^_]|\d+(?:\.\d+)?|\s+|.")


def mathml(tex: str) -> str:
    """The formula as a block of MathML, with the TeX as its label."""
    tokens = [token for token in _TOKEN.findall(tex) if not token.isspace()]
    body = _row(tokens, "")
    return f'<math display="block" aria-label="{escape(tex, quote=True)}"><mrow>{body}</mrow></math>'


def _row(tokens: list[str], until: str) -> str:
    """Everything up to the token `until`, which is taken as well."""
    parts: list[str] = []
    while tokens:
        token = tokens.pop(0)
        if token == until:
            return "".join(parts)
        if token in "^_" and parts:
            parts.append(_scripts(parts.pop(), token, tokens))
        else:
            parts.append(_atom(token, tokens))
    if until:
        raise ValueError(f"a formula has no {until}")
    return "".join(parts)


def _scripts(base: str, first: str, tokens: list[str]) -> str:
    """What is below and above the base."""
    found = {first: _argument(tokens)}
    if tokens and tokens[0] in "^_" and tokens[0] not in found:
        second = tokens.pop(0)
        found[second] = _argument(tokens)
    name = {"_": "msub", "^": "msup"}[first] if len(found) == 1 else "msubsup"
    if base in _LIMITS:
        name = {"_": "munder", "^": "mover"}[first] if len(found) == 1 else "munderover"
    return f"<{name}>{base}{found.get('_', '')}{found.get('^', '')}</{name}>"


def _argument(tokens: list[str]) -> str:
    if not tokens:
        raise ValueError("a formula ends where an argument is expected")
    token = tokens.pop(0)
    return f"<mrow>{_row(tokens, '}')}</mrow>" if token == "{" else _atom(token, tokens)


def _atom(token: str, tokens: list[str]) -> str:
    name = token[1:]
    if token == "{":
        return f"<mrow>{_row(tokens, '}')}</mrow>"
    if token == "\\frac":
        return f"<mfrac>{_argument(tokens)}{_argument(tokens)}</mfrac>"
    if token == "\\hat":
        return f"<mover>{_argument(tokens)}<mo>^</mo></mover>"
    if token == "\\bar":
        return f"<mover>{_argument(tokens)}<mo>¯</mo></mover>"
    if token in ("\\,", "\\quad"):
        width = "0.2em" if token == "\\," else "1.2em"
        return f'<mspace width="{width}"/>'
    if token == "\\text":
        return f"<mtext>{_letters(tokens)}</mtext>"
    if token.startswith("\\") and name in _SIGNS:
        return f"<mi>{_SIGNS[name]}</mi>"
    if token.startswith("\\") and name in _OPERATORS:
        still = ' stretchy="false"' if name in _FENCES else ""
        return f"<mo{still}>{_OPERATORS[name]}</mo>"
    if name in _FUNCTIONS and token.startswith("\\"):
        return f"<mi>{name}</mi>"
    if token.startswith("\\") or token in "}^_":
        raise ValueError(f"{token!r} has no meaning in a formula")
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token in "()":
        return f'<mo stretchy="false">{token}</mo>'
    return f"<mi>{token}</mi>" if token.isalpha() else f"<mo>{escape(token.replace('-', '−'))}</mo>"


def _letters(tokens: list[str]) -> str:
    """A word in braces; spaces are written as `~`."""
    if not tokens or tokens.pop(0) != "{":
        raise ValueError("\\text takes a word in braces")
    end = tokens.index("}")
    word = "".join(tokens[:end]).replace("~", " ")
    del tokens[: end + 1]
    return escape(word)
