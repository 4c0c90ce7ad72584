"""The self-check: what is wrong is found and named, what is right or cannot be told raises nothing."""

import pytest
import torch
from operator_cases import CASES
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from wrong_layers import WRONG, OpaqueTanh, ScaledGradient, network

from landscape import (
    EmpiricalFisher,
    FiniteDifferenceHessian,
    FunctionalHessian,
    GaussNewton,
    Hessian,
    Objective,
    TangentKernel,
    WrongDerivatives,
    unfused_weight_norm,
)
from landscape.operators import self_check
from landscape.operators.check import Check, clearly_off, worst
from landscape.spectra import condition_number, density, diagonal, eigsh, lanczos, trace

FAST = range(2)
ALL = [pytest.param(seed, marks=pytest.mark.slow) if seed not in FAST else seed for seed in range(20)]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def problem(seed, kind, dtype, activation=nn.Tanh, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(kind, activation).to(dtype) if kind in WRONG else kind().to(dtype)
        X, y = torch.randn(40, 4, dtype=dtype), torch.randint(0, 3, (40,))
    return Objective(model, nn.CrossEntropyLoss(), (X, y), **options)


def product(A):
    return A @ torch.ones(A.shape[0])


# -- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("seed", ALL)
def test_wrong_derivatives_are_found_and_named(seed, kind, dtype):
    for activation in (nn.Tanh, nn.ReLU):
        f = problem(seed, kind, dtype, activation)
        for matrix in (Hessian, FunctionalHessian):
            with pytest.raises(WrongDerivatives, match="of '3' "):
                product(matrix(f))
        if kind != "fused weight norm":  # its first derivatives are right
            for matrix in (GaussNewton, EmpiricalFisher, TangentKernel):
                with pytest.raises(WrongDerivatives, match="of '3' "):
                    product(matrix(f))


@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, 0.005), (torch.float32, 0.005), (torch.half, 0.001)])
def test_a_small_layer_that_is_wrong_shows_in_its_own_block(dtype, share):
    class Side(nn.Module):
        """A large part that is right, and a small one beside it that is not and hardly moves the outputs."""

        def __init__(self):
            super().__init__()
            self.large = nn.Sequential(nn.Linear(4, 300), nn.Tanh(), nn.Linear(300, 3))
            self.small = network("opaque backward")

        def forward(self, x):
            return self.large(x) + share * self.small(x)

    with pytest.raises(WrongDerivatives, match=r"'small\.3' "):
        product(Hessian(problem(0, Side, dtype)))


def test_the_jacobian_of_a_fused_weight_norm_is_right():
    A = GaussNewton(problem(0, "fused weight norm", torch.float64))
    product(A)
    assert A.checked.verdict == "agrees"
    with pytest.raises(WrongDerivatives):  # what is known of one matrix says nothing of another
        product(Hessian(A.objective))


def test_a_layer_that_draws_random_numbers_is_named():
    class Dropped(OpaqueTanh):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5)

    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 6), Dropped(), nn.Linear(6, 3)), torch.float64)
    with pytest.raises(WrongDerivatives, match="of '1' "):
        product(Hessian(f))


def test_of_several_the_worst_counts():
    agrees, untold, off = (Check(verdict) for verdict in ("agrees", "untold", "off"))
    assert worst([agrees, off, None, untold]) is off
    assert worst([untold, agrees]) is untold
    assert worst([None, agrees]) is agrees
    assert worst([None]) is None


def test_a_smooth_model_is_told_in_its_own_precision():
    """To one part in 10,000 in float32, as central differences are; float64 is not asked."""
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.float32)
    for matrix in (Hessian, GaussNewton, FunctionalHessian):
        A = matrix(f)
        product(A)
        assert A.checked.dtype == torch.float32
        assert A.checked.difference < 1e-4


def test_without_float64_what_is_off_has_to_be_clearly_so():
    assert not clearly_off(Check("off", difference=0.02, steps=0.001))
    assert clearly_off(Check("off", difference=0.04, steps=0.001))
    assert not clearly_off(Check("untold", difference=0.04, steps=0.001))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gradient_that_is_scaled_as_a_whole_is_found(dtype):
    """Its own differences agree with it; the function's do not."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    data, scaled = (torch.randn(40, 4, dtype=dtype), torch.randint(0, 3, (40,))), ScaledGradient()
    f = Objective(model, lambda o, t: scaled(nn.functional.cross_entropy(o, t)), data)
    for matrix in (Hessian, FunctionalHessian, EmpiricalFisher):
        with pytest.raises(WrongDerivatives, match="its loss"):
            product(matrix(f))


def test_near_a_minimum_the_slope_leaves_no_doubt_about_the_rest():
    X = torch.randn(30, 3)
    model = nn.Linear(3, 1)
    f = Objective(model, nn.MSELoss(), (X, model(X).detach()))
    A = Hessian(f)
    product(A)
    assert A.checked.verdict == "agrees"


def test_check_false_measures_all_the_same():
    A = Hessian(problem(0, "opaque backward", torch.float64, check=False))
    product(A)
    assert A.checked is None


def test_finite_differences_measure_behind_an_opaque_backward():
    f = problem(0, "opaque backward", torch.float64)
    plain = nn.Sequential(*f.model[:3], nn.Tanh(), *f.model[4:])
    data = next(iter(f.sweep()))
    g = Objective(plain, nn.CrossEntropyLoss(), (data.inputs, data.targets))
    v = torch.ones(f.size, dtype=torch.float64)
    assert torch.allclose(FiniteDifferenceHessian(f) @ v, Hessian(g) @ v, atol=1e-6)


def test_a_product_stays_refused():
    A = Hessian(problem(0, "opaque backward", torch.float64))
    for _ in range(2):
        with pytest.raises(WrongDerivatives):
            product(A)


# -- what is right -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_no_false_alarm(name):
    case = CASES[name]()
    f = Objective(case.model, case.loss, case.batches, **case.options)
    for matrix in (Hessian, GaussNewton, FunctionalHessian, TangentKernel):
        A = matrix(f)
        product(A)
        assert A.checked.verdict == "agrees"
        assert A.checked.dtype == torch.float64


def counted(monkeypatch):
    """A list that grows by one with each check that is made."""
    calls, draw = [], self_check.direction
    monkeypatch.setattr(self_check, "direction", lambda objective: calls.append(objective) or draw(objective))
    return calls


# -- when it is made -----------------------------------------------------------------------------------------------


def test_once_per_model_and_again_when_it_is_built_otherwise(monkeypatch):
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.float64)
    calls = counted(monkeypatch)
    for _ in range(2):
        product(Hessian(f))
    assert len(calls) == 1
    f.model.eval()
    product(Hessian(f))
    assert len(calls) == 2


def test_always_checks_every_operator(monkeypatch):
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.float64, check="always")
    calls = counted(monkeypatch)
    for _ in range(2):
        A = Hessian(f)
        product(A)
        product(A)
    assert len(calls) == 2


def test_results_and_combinations_carry_it():
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.float64)
    A = Hessian(f)
    assert A.checked is None
    v = torch.ones(f.size)
    found = [eigsh(A, 1), trace(A), diagonal(A), density(A), lanczos(A, v, 2), condition_number(A)]
    found += [density(A).moment(1), eigsh(2.0 * A + A.shifted(1.0), 1)]
    assert all(result.checked == A.checked for result in found)
    assert A.checked.verdict == "agrees"


# -- what cannot be told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_kink_at_the_parameters_is_a_note(layer, dtype):
    f = problem(
        0, lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), dtype
    )
    for p in f.model[layer].parameters():
        nn.init.zeros_(p)
    for matrix in (Hessian, GaussNewton):
        A = matrix(f)
        product(A)
        assert A.checked.verdict == "untold"
        assert "kink" in A.checked.note
        assert "beside them agrees" in A.checked.note


def test_what_is_wrong_on_a_kink_is_found_beside_it():
    f = problem(0, "opaque backward", torch.float64, nn.ReLU)
    nn.init.zeros_(f.model[0].weight)
    nn.init.zeros_(f.model[0].bias)
    with pytest.raises(WrongDerivatives, match="'3'"):
        product(Hessian(f))


def test_a_penalty_with_its_kink_at_zero():
    model = nn.Linear(4, 3).double()
    nn.init.zeros_(model.weight)

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets) + sum(p.abs().sum() for p in model.parameters())

    A = Hessian(Objective(model, loss, (torch.randn(9, 4).double(), torch.randint(0, 3, (9,)))))
    product(A)
    assert A.checked.verdict == "untold"


def test_rows_of_padding_have_a_masked_gradient_and_raise_nothing():
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=1), nn.Flatten(), nn.Linear(12, 3)).double()
    A = Hessian(Objective(model, nn.CrossEntropyLoss(), (torch.randint(0, 5, (9, 3)), torch.randint(0, 3, (9,)))))
    product(A)
    assert A.checked.verdict == "agrees"


class Float32Inside(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True)).to(x.dtype)


def test_float32_inside_a_float64_model_is_no_error():
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 6), Float32Inside(), nn.Linear(6, 3)), torch.float64)
    A = Hessian(f)
    product(A)
    assert A.checked.verdict == "agrees"
    assert A.checked.difference < 1e-5  # what the product errs by, not the differences


def test_half_precision_is_told_in_float64():
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.bfloat16)
    A = Hessian(f)
    product(A)
    assert (A.checked.verdict, A.checked.dtype) == ("agrees", torch.float64)


def test_half_precision_without_a_float64_copy_is_a_note():
    class OneDtype(nn.Module):
        def forward(self, x):
            if x.dtype != torch.bfloat16:
                raise TypeError("bfloat16 only")
            return x.tanh()

    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 6), OneDtype(), nn.Linear(6, 3)), torch.bfloat16)
    A = Hessian(f)
    product(A)
    assert A.checked.verdict == "untold"
    assert "half precision, and no float64 copy of it (bfloat16 only)" in A.checked.note


def test_a_check_that_fails_is_a_note():
    class OneDtype(nn.Module):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return x.relu()

    class OnePlace(nn.Linear):
        def __init__(self):
            super().__init__(4, 3)
            self.there = self.weight.detach().clone()

        def forward(self, x):
            if not torch.equal(self.weight.detach(), self.there):
                raise ValueError("only there")
            return super().forward(x)

    f = problem(0, OnePlace, torch.float32)
    A = Hessian(f)
    product(A)
    assert A.checked.verdict == "untold"
    assert "the check could not be made" in str(A.checked)
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 600), OneDtype(), nn.Linear(600, 3)), torch.float32)
    A = Hessian(f)
    product(A)
    assert A.checked.verdict == "untold"


# -- the graph of one loss -----------------------------------------------------------------------------------------


def test_a_loss_in_hand_says_that_it_cannot_be_told_and_what_it_holds():
    f = problem(0, "opaque backward", torch.float64)
    data = next(iter(f.sweep()))
    A = Hessian.from_loss(nn.functional.cross_entropy(f.model(data.inputs), data.targets), f.model.parameters())
    assert A.checked.verdict == "untold"
    assert "_Opaque" in A.checked.note


def test_a_loss_with_fused_weight_norm_is_refused_and_unfused_it_is_right():
    f = problem(0, lambda: nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)), torch.float64)
    data = next(iter(f.sweep()))
    loss = lambda: nn.functional.cross_entropy(f.model(data.inputs), data.targets)  # noqa: E731
    with pytest.raises(RuntimeError, match="unfused_weight_norm"):
        Hessian.from_loss(loss(), f.model.parameters())
    with unfused_weight_norm():
        A = Hessian.from_loss(loss(), f.model.parameters())
    assert torch.allclose(product(A), product(Hessian(f)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spectral_norm_in_train_mode_is_found(dtype):
    layer = lambda: spectral_norm(nn.Linear(6, 5))  # noqa: E731
    f = problem(0, lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), layer(), nn.Tanh(), nn.Linear(5, 3)), dtype)
    with pytest.raises(WrongDerivatives, match="'2"):
        product(Hessian(f))
    A = Hessian(Objective(f.model.eval(), nn.CrossEntropyLoss(), next((b.inputs, b.targets) for b in f.sweep())))
    product(A)
    assert A.checked.verdict == "agrees"
