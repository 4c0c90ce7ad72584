"""`name:key=value,...`: names with colons of their own, commas in parentheses, and what is no option."""

import pytest

from probes.errors import UserError
from probes.specs import parse_spec, split_commas, value_of

KNOWN = {"spectrum", "ngn"}


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("spectrum", "spectrum", {}),
        ("spectrum:k=10, tol=1e-4,", "spectrum", {"k": "10", "tol": "1e-4"}),
        ("spectrum:parameters=a:b=c", "spectrum", {"parameters": "a:b=c"}),
        ("torch.optim:AdamW", "torch.optim:AdamW", {}),
        ("torch.optim:AdamW:betas=(0.9,0.95),eps=0", "torch.optim:AdamW", {"betas": "(0.9,0.95)", "eps": "0"}),
        ("unknown:k=1", "unknown", {"k": "1"}),
    ],
)
def test_names_and_options(text, name, options):
    assert parse_spec(text, KNOWN, "--probe") == (name, options)


@pytest.mark.parametrize("text", ["spectrum:k", "spectrum:k=1,tol", "ngn:=3", "ngn:a b=3"])
def test_what_is_no_option(text):
    with pytest.raises(UserError, match=f"in --probe {text} is no option: write {text.split(':')[0]}:option=value"):
        parse_spec(text, KNOWN, "--probe")


def test_values_and_commas():
    assert [value_of(text) for text in ("1e-2", "(0.9,1)", "true", "None", "xtrace")] == [
        0.01,
        (0.9, 1),
        True,
        None,
        "xtrace",
    ]
    assert split_commas("a, b:x=(1,2),,c") == ["a", "b:x=(1,2)", "c"]
