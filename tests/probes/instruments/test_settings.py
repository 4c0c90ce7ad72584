"""Settings of probes: types and ranges are looked at when a probe is made, before there is a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from probes.checkpoints.arguments import parse_probes
from probes.errors import UserError
from probes.instruments.entry import PYTHON_ONLY
from probes.instruments.registry import PROBES
from probes.instruments.settings import rule_broken

REFUSED = {
    "spectrum:k=abc": "k='abc' is not possible: k must be a whole number",
    "spectrum:k=-2": "k must be at least 1",
    "spectrum:k=2.5": "k must be a whole number",
    "spectrum:k=true": "k must be a whole number",
    "spectrum:which=XX": "which is one of LA, SA, LM",
    "spectrum:tol=nan": "tol must be a number",
    "spectrum:warm=maybe": "warm must be True or False",
    "spectrum:parameters=(1,2)": "parameters must be a name or a tuple of names or None",
    "trace:rtol=-1": "rtol must be positive and finite",
    "trace:matvecs=0": "matvecs must be at least 1",
    "condition:threshold=-1": "threshold must be finite and not negative",
    "condition:rank=0": "rank must be at least 1",
    "gauss-newton:threshold=abc": "threshold must be a number or None or 'paper'",
    "sharpness:lr=abc": "lr must be a number or None",
    "function-class:infimum=abc": "infimum must be a number or 'estimate'",
    "neural-collapse:head=3": "head must be a text or None",
    "dual-gradient:norm=foo": "norm is one of auto, spectral",
    "dual-gradient:layers=3": "layers=3 is not possible",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_before_a_model_is_loaded(text: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_probes([text], "hessian")
    assert raised.value.status == 2
    assert f"--probe {text}: " in str(raised.value)
    assert REFUSED[text] in str(raised.value)


@pytest.mark.parametrize("name", PROBES)
def test_no_option_of_any_probe_takes_a_thing_of_another_kind(name: str) -> None:
    kind = PROBES[name].load()
    for field in dataclasses.fields(kind):
        if field.name not in PYTHON_ONLY:
            with pytest.raises(ValueError, match=f"{field.name}={{'what': 1}} is not possible"):
                kind(**{field.name: {"what": 1}})


def test_what_is_a_number_for_numpy_is_one_here() -> None:
    for value, annotation in (
        (np.int64(3), "int"),
        (np.float32(0.5), "float | None"),
        (3, "float"),
        (None, "int | None"),
    ):
        assert rule_broken("skip", value, annotation) == ""
    assert rule_broken("tol", float("nan"), "float") == "must be a number, not nan"
    assert rule_broken("end", object(), "Recording | torch.Tensor | None") == ""
