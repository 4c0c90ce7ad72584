"""Whatever is asked of a sharded model is what one process finds, or is refused by name."""

import pytest
import sharded_cases as cases
import sharded_uses as uses
from processes import on_ranks

REFUSED = {
    *("differences", "functional Hessian", "tangent kernel", "batch sharpness", "critical sharpness", "sam"),
    "trajectory",
}


@pytest.mark.slow
def test_every_use_is_right_or_refused(tmp_path):
    expected = uses.asked(cases.objective("mlp", cases.cases.batches_of("mlp")))
    for found in on_ranks("sharded_uses:of_shares", 2, tmp_path, "mlp"):
        for name, value in expected.items():
            if name in REFUSED:
                kind, text = found[name]
                assert kind == "TypeError", f"{name}: {text}"
                assert "is not for sharded models" in text
            else:
                assert not isinstance(found[name], tuple), f"{name}: {found[name]}"
                assert float((found[name] - value).norm()) <= 1e-10 * float(value.norm()), name
