"""What torch asks of an optimizer, of every solver: groups, freezing, copies, states, schedulers, hooks, closures."""

import copy
import pickle

import pytest
import torch
from solver_cases import (
    ALL,
    BY_GRADIENT,
    BY_LOSS,
    CURVED,
    FIRST,
    SECOND,
    TWICE,
    X,
    Y,
    backward_closure,
    closure_of,
    small_model,
    steps,
    values,
)
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedules

from solvers import NGN, SAM, SGD, AdaGradNorm, AdamCoupled, CubicNewton, Muon, Scion, SignSGD, Signum

every = pytest.mark.parametrize("name", list(ALL))
first = pytest.mark.parametrize("name", list(FIRST))
second = pytest.mark.parametrize("name", list(SECOND))
by_graph = pytest.mark.parametrize("name", list(SECOND | CURVED))


# -- groups ------------------------------------------------------------------------------------------------------------


@every
def test_a_group_that_is_added_moves(name):
    model = small_model()
    solver = ALL[name](model[2].parameters())
    steps(solver, closure_of(model), 2)
    before = model[0].weight.detach().clone()
    solver.add_param_group({"params": list(model[0].parameters())})
    steps(solver, closure_of(model), 8)
    assert len(solver.param_groups) == 2
    assert not torch.equal(before, model[0].weight)


@every
def test_frozen_and_unfrozen(name):
    model = small_model()
    model[0].requires_grad_(False)
    solver, start = ALL[name](model.parameters()), model[0].weight.detach().clone()
    steps(solver, closure_of(model), 2)
    assert torch.equal(start, model[0].weight)
    model[0].requires_grad_(True)
    steps(solver, closure_of(model), 8)
    assert not torch.equal(start, model[0].weight)
    model[2].requires_grad_(False)
    kept, moving = model[2].weight.detach().clone(), model[0].weight.detach().clone()
    steps(solver, closure_of(model), 8)
    assert torch.equal(kept, model[2].weight)
    assert not torch.equal(moving, model[0].weight)


@every
@pytest.mark.parametrize("how", ["empty", "frozen", "unused"])
def test_where_nothing_can_move_the_loss_comes_back(name, how):
    model, p = small_model(), nn.Parameter(torch.ones(6))
    solver = ALL[name]([{"params": [] if how == "empty" else [p]}]) if how != "empty" or name in FIRST else None
    if solver is None:
        solver = ALL[name]([p])
        p.requires_grad_(False)
    p.requires_grad_(how != "frozen")
    before = values(model)
    loss = solver.step(closure_of(model))
    assert float(loss) == pytest.approx(float(closure_of(model)().detach()))
    assert torch.equal(before, values(model))
    assert torch.equal(p, torch.ones(6))


@every
def test_what_the_loss_does_not_use_stays(name):
    """Also where a solver takes random directions of the whole, or decays what it moves."""
    model, unused = small_model(), nn.Parameter(torch.ones(4))
    solver = ALL[name]([unused, *model.parameters()])
    before = values(model)
    steps(solver, closure_of(model), 5)
    assert torch.equal(unused, torch.ones(4))
    assert not torch.equal(before, values(model))


def test_unused_parameters_do_not_change_a_second_order_step():
    for make in SECOND.values():
        one, other = small_model().double(), small_model().double()
        steps(make(one.parameters()), closure_of(one), 3)
        steps(make([*other.parameters(), nn.Parameter(torch.ones(4).double())]), closure_of(other), 3)
        torch.testing.assert_close(values(one), values(other), rtol=1e-9, atol=1e-11)


@every
def test_named_parameters(name):
    one, other = small_model(), small_model()
    solver = ALL[name](one.named_parameters())
    assert solver.param_groups[0]["param_names"] == [n for n, _ in one.named_parameters()]
    assert steps(solver, closure_of(one), 3) == steps(ALL[name](other.parameters()), closure_of(other), 3)


@second
def test_two_groups_are_one_model(name):
    one, other = small_model(), small_model()
    split = ALL[name]([{"params": list(other[0].parameters())}, {"params": list(other[2].parameters())}])
    steps(ALL[name](one.parameters()), closure_of(one), 4)
    steps(split, closure_of(other), 4)
    assert torch.equal(values(one), values(other))
    constants = [{k: v for k, v in group.items() if k != "params"} for group in split.param_groups]
    assert constants[0] == constants[1]
    split.param_groups[1]["lr"] = 0.5
    with pytest.raises(ValueError, match=r"have one lr, not \[0.5, 1.0\]"):
        split.step(closure_of(other))


# -- copies and states -------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_copy_goes_on(name, how, before):
    if name == "SAM-Adam" and how == "pickle" and before == 0:
        pytest.skip("the same as after three steps")
    model = small_model()
    solver = ALL[name](model.parameters())
    scheduler = schedules.StepLR(solver, 2)  # which wraps the method step of this object
    steps(solver, closure_of(model), before)
    duplicate = copy.deepcopy if how == "deepcopy" else lambda pair: pickle.loads(pickle.dumps(pair))
    other, twin = duplicate((model, solver))
    start = values(model)
    ours = steps(twin, closure_of(other), 3)
    assert torch.equal(start, values(model))
    assert not torch.equal(start, values(other))
    assert steps(solver, closure_of(model), 3) == ours
    assert torch.equal(values(model), values(other))
    scheduler.step()
    assert twin.param_groups[0]["lr"] == solver.param_groups[0]["lr"]


@every
def test_a_state_goes_on_in_a_fresh_solver(name):
    model, other = small_model(), small_model()
    solver, fresh = ALL[name](model.parameters()), ALL[name](other.parameters())
    steps(solver, closure_of(model), 4)
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(solver.state_dict()))
    assert steps(solver, closure_of(model), 3) == steps(fresh, closure_of(other), 3)
    assert torch.equal(values(model), values(other))


@every
def test_a_state_of_other_groups_is_refused_and_changes_nothing(name):
    model = small_model()
    solver, wide = ALL[name](model[0].parameters()), ALL[name](small_model().parameters())
    steps(solver, closure_of(model), 2)
    kept = copy.deepcopy(solver.state_dict())
    with pytest.raises(ValueError, match="size of optimizer's group"):
        solver.load_state_dict(wide.state_dict())
    assert str(solver.state_dict()) == str(kept)


# -- schedulers and lr -------------------------------------------------------------------------------------------------

SCHEDULES = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda k: k / 5),  # begins with lr = 0
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda k: 0.9),
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: schedules.ConstantLR(o, 0.5, 2),
    "LinearLR": lambda o: schedules.LinearLR(o, 0.1, total_iters=3),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 4),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 4),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.001, 0.01, step_size_up=2, cycle_momentum=False),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.01, 6, cycle_momentum=False),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler([schedules.StepLR(o, 1), schedules.ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o, 0.1, 2), schedules.ExponentialLR(o, 0.9)], [2]
    ),
}


@every
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_schedulers(name, schedule):
    model = small_model()
    solver = ALL[name](model.parameters())
    scheduler, seen = SCHEDULES[schedule](solver), []
    for _ in range(3):
        loss = solver.step(closure_of(model))
        seen.append(float(solver.param_groups[0]["lr"]))
        scheduler.step(float(loss)) if schedule == "ReduceLROnPlateau" else scheduler.step()
    assert len(set(seen)) > 1 or schedule == "ReduceLROnPlateau"
    assert bool(torch.isfinite(values(model)).all())
    if name in SECOND:
        assert solver.last.lr == seen[-1]


@every
def test_lr_scales_the_step(name):
    """One step with lr / 4: a quarter of it where the rule is linear in lr, and a shorter one for all."""
    moved = []
    for share in (1.0, 0.25):
        model = small_model().double()
        solver, start = ALL[name](model.parameters()), values(model)
        solver.param_groups[0]["lr"] *= share
        steps(solver, closure_of(model), 2 if name == "SOAP" else 1)  # its first step finds the bases
        moved.append(float((values(model) - start).norm()))
    if name in ("SGD", "AdamCoupled", "SignSGD", "Scion", "SAM"):
        assert moved[1] == pytest.approx(0.25 * moved[0], rel=1e-9)
    assert 0 < moved[1] < moved[0] or name in ("SPSMax", "DecSPS")


@pytest.mark.parametrize("name", SECOND)
def test_lr_is_an_argument_of_second_order_solvers(name):
    p = [nn.Parameter(torch.ones(40))]
    solver = type(SECOND[name](p))
    first = {"SSCN": (2,), "RSRNM": (2,), "CoordinateDescent": (2,)}.get(solver.__name__, ())
    assert solver(p, *first, lr=0.5).param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="lr"):
        solver(p, *first, lr=-1.0)


@every
def test_a_tensor_as_lr(name):
    one, other = small_model(), small_model()
    solver, tensor = ALL[name](one.parameters()), ALL[name](other.parameters())
    tensor.param_groups[0]["lr"] = torch.tensor(solver.param_groups[0]["lr"])
    schedules.ExponentialLR(tensor, 0.5)
    schedules.ExponentialLR(solver, 0.5)
    for s in (solver, tensor):
        s.param_groups[0]["lr"] *= 0.5
    assert steps(solver, closure_of(one), 3) == pytest.approx(steps(tensor, closure_of(other), 3), rel=1e-5)


# -- closures ----------------------------------------------------------------------------------------------------------


@first
def test_a_closure_that_calls_backward(name):
    one, other = small_model(), small_model()
    solver, automatic = ALL[name](one.parameters()), ALL[name](other.parameters())
    plain = steps(solver, closure_of(one), 3)
    assert steps(automatic, backward_closure(automatic, other), 3) == pytest.approx(plain, rel=1e-6)
    torch.testing.assert_close(values(one), values(other), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", list(BY_GRADIENT | BY_LOSS))
def test_a_backward_closure_may_return_a_number_or_a_loss_with_its_graph(name):
    for give in (float, lambda loss: loss):
        one, other = small_model(), small_model()
        solver, usual = ALL[name](one.parameters()), ALL[name](other.parameters())

        def closure(solver=solver, model=one, give=give):
            solver.zero_grad(set_to_none=False)
            loss = closure_of(model)()
            loss.backward()
            return give(loss.detach()) if give is float else loss

        assert [float(solver.step(closure)) for _ in range(3)] == pytest.approx(steps(usual, closure_of(other), 3))
        torch.testing.assert_close(values(one), values(other), rtol=1e-5, atol=1e-7)


def test_gradients_of_before_are_not_taken_for_those_of_the_closure():
    model = small_model()
    closure_of(model)().backward()
    old = [p.grad.clone() for p in model.parameters()]
    one = copy.deepcopy(model)
    closure_of(one)().backward()  # a copy has no gradients
    SGD(one.parameters(), 0.1).step(lambda: 2 * closure_of(one)())
    gradients = torch.autograd.grad(closure_of(model)(), list(model.parameters()))
    for p, q, g in zip(one.parameters(), model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p, q - 0.2 * g)
    SGD(model.parameters(), 0.1).zero_grad(set_to_none=False)
    assert all(o.abs().sum() > 0 for o in old)
    with pytest.raises(ValueError, match="no graph"):
        SGD(one.parameters(), 0.1).step(lambda: closure_of(one)().detach())


@by_graph
@pytest.mark.parametrize("how", ["none", "detached", "backward"])
def test_what_needs_the_graph_names_manual_optimization(name, how):
    model = small_model()
    solver, before = ALL[name](model.parameters()), values(model)

    def backward():
        loss = closure_of(model)()
        loss.backward()
        return loss

    closure = {"none": None, "detached": backward_closure(solver, model), "backward": backward}[how]
    with pytest.raises((ValueError, RuntimeError), match="manual optimization"):
        solver.step(closure)
    assert torch.equal(before, values(model))


@pytest.mark.parametrize("name", list(BY_GRADIENT))
def test_without_a_closure(name):
    one, other = small_model(), small_model()
    solver, usual = ALL[name](one.parameters()), ALL[name](other.parameters())
    for _ in range(3):
        solver.zero_grad()
        closure_of(one)().backward()
        assert solver.step() is None
    steps(usual, closure_of(other), 3)
    torch.testing.assert_close(values(one), values(other), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [*BY_LOSS, *TWICE])
def test_without_a_closure_where_more_is_needed(name):
    model = small_model()
    solver, before = ALL[name](model.parameters()), values(model)
    closure_of(model)().backward()
    with pytest.raises(ValueError, match=r"needs the loss: call step|needs step"):
        solver.step()
    assert torch.equal(before, values(model))


def test_sam_refuses_gradients_that_add_up():
    model = small_model()
    solver, before = SAM(model.parameters(), 0.1), values(model)

    def closure():
        loss = closure_of(model)()
        loss.backward()
        return loss.detach()

    with pytest.raises(ValueError, match="zero_grad"):
        solver.step(closure)
    assert torch.equal(before, values(model))


@every
def test_a_step_under_no_grad_keeps_no_graph(name):
    model = small_model()
    solver = ALL[name](model.parameters())
    with torch.no_grad():
        loss = solver.step(closure_of(model))
    assert not loss.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    held = [v for v in vars(solver).values() if isinstance(v, torch.Tensor)]
    assert not any(t.requires_grad and t.grad_fn is not None for t in held)


@every
def test_an_exception_leaves_all_as_it_was(name):
    for fails_at in (1, 2, 3):
        model = small_model(nn.BatchNorm1d(4))
        solver, before, calls = ALL[name](model.parameters()), values(model), []

        def closure(calls=calls, model=model, fails_at=fails_at):
            calls.append(1)
            loss = closure_of(model)()
            if len(calls) == fails_at:
                raise KeyboardInterrupt
            return loss

        try:
            solver.step(closure)
        except KeyboardInterrupt:
            assert torch.equal(before, values(model))
            assert int(model[1].num_batches_tracked) <= 1
        assert len(calls) <= fails_at or name not in FIRST


# -- one function a step -----------------------------------------------------------------------------------------------


@every
def test_one_dropout_mask_and_one_update_of_running_statistics(name):
    model = small_model(nn.BatchNorm1d(4), nn.Dropout(0.5))
    reference, masks = copy.deepcopy(model), []
    model[2].register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    solver = ALL[name](model.parameters())
    torch.manual_seed(5)
    solver.step(closure_of(model))
    after = torch.rand(3)
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    torch.manual_seed(5)
    reference(X)
    assert torch.equal(after, torch.rand(3))
    for (key, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert torch.equal(ours, theirs), key


def test_spectral_norm_advances_once_a_step():
    model = small_model()
    nn.utils.parametrizations.spectral_norm(model[0])
    reference = copy.deepcopy(model)
    CubicNewton(model.parameters()).step(closure_of(model))
    reference(X)
    assert torch.equal(model[0].parametrizations.weight[0]._u, reference[0].parametrizations.weight[0]._u)


# -- hooks, scalers, kinds of parameters -------------------------------------------------------------------------------


@every
def test_hooks(name):
    model, seen = small_model(), []
    solver = ALL[name](model.parameters())
    solver.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    solver.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))
    solver.register_state_dict_pre_hook(lambda o: seen.append("saving"))

    def saved(o, state):
        state["note"] = "mine"
        return state

    solver.register_state_dict_post_hook(saved)
    solver.register_load_state_dict_pre_hook(lambda o, state: seen.append(state["note"]))
    solver.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    solver.step(closure_of(model))
    solver.load_state_dict(solver.state_dict())
    assert seen == ["pre", "post", "saving", "mine", "loaded"]


MAXIMIZE = {
    "SGD": (lambda p, **k: SGD(p, 0.1, momentum=0.9, weight_decay=0.1, **k)),
    "Signum": lambda p, **k: Signum(p, 0.01, **k),
    "SignSGD": lambda p, **k: SignSGD(p, 0.01, **k),
    "AdamCoupled": lambda p, **k: AdamCoupled(p, 0.01, coupled=0.1, **k),
    "Scion": lambda p, **k: Scion(p, 0.01, **k),
    "Muon": lambda p, **k: Muon(p, 0.01, **k),
    "AdaGradNorm": lambda p, **k: AdaGradNorm(p, 0.1, **k),
}


@pytest.mark.parametrize("name", list(MAXIMIZE))
@pytest.mark.parametrize("where", ["argument", "group"])
def test_maximize(name, where):
    up, down = small_model(), small_model()
    asked = {"maximize": True} if where == "argument" else {}
    group = {"params": list(up.parameters())} | ({"maximize": True} if where == "group" else {})
    solver, usual = MAXIMIZE[name]([group], **asked), MAXIMIZE[name](down.parameters())
    for _ in range(3):
        solver.step(closure_of(up))
        usual.step(lambda: -closure_of(down)())
    assert torch.equal(values(up), values(down))


@pytest.mark.parametrize("name", [*BY_LOSS, *SECOND, *CURVED, "SAM"])
def test_what_cannot_maximize_says_so(name):
    with pytest.raises(ValueError, match="negate the loss"):
        ALL[name]([{"params": [nn.Parameter(torch.ones(6))], "maximize": True}])


@pytest.mark.parametrize("name", [*BY_GRADIENT, *BY_LOSS])
def test_a_grad_scaler(name):
    model, other = small_model(), small_model()
    solver, usual = ALL[name](model.parameters()), ALL[name](other.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(3):
        solver.zero_grad()
        loss = closure_of(model)()
        scaler.scale(loss).backward()
        scaler.step(solver, **({"loss": loss} if name in BY_LOSS else {}))
        scaler.update()
        usual.step(closure_of(other))
    torch.testing.assert_close(values(model), values(other), rtol=1e-5, atol=1e-7)


@first
def test_complex_parameters_are_pairs_of_reals(name):
    if not ALL[name]([nn.Parameter(torch.zeros(3))]).takes_complex:
        with pytest.raises(ValueError, match=r"^\w+ takes real parameters"):
            ALL[name]([nn.Parameter(torch.zeros(3, dtype=torch.cdouble))])
        return
    torch.manual_seed(0)
    start, target = torch.randn(3, dtype=torch.cdouble), torch.randn(3, dtype=torch.cdouble)
    z, pairs = nn.Parameter(start.clone()), nn.Parameter(torch.view_as_real(start).clone())
    one, other = ALL[name]([z]), ALL[name]([pairs])
    loss_of_pairs = lambda: (pairs - torch.view_as_real(target)).square().sum()  # noqa: E731
    ours = steps(one, lambda: ((z - target).abs() ** 2).sum(), 6)
    assert steps(other, loss_of_pairs, 6) == pytest.approx(ours, rel=1e-9)
    torch.testing.assert_close(torch.view_as_real(z.detach()), pairs.detach(), rtol=1e-9, atol=1e-12)


@by_graph
def test_complex_parameters_are_refused(name):
    with pytest.raises(ValueError, match=r"real parameters: keep torch\.view_as_real"):
        ALL[name]([nn.Parameter(torch.zeros(6, dtype=torch.cdouble))])
    solver = ALL[name](small_model().parameters())
    with pytest.raises(ValueError, match="real parameters"):
        solver.add_param_group({"params": [nn.Parameter(torch.zeros(6, dtype=torch.cdouble))]})
    assert len(solver.param_groups) == 1


@every
def test_parameters_of_several_dtypes(name):
    one, other = small_model(), small_model()
    one[2].double()
    closure = lambda: F.cross_entropy(one[2](torch.tanh(one[0](X)).double()), Y)  # noqa: E731
    mixed = steps(ALL[name](one.parameters()), closure, 3)
    assert mixed == pytest.approx(steps(ALL[name](other.parameters()), closure_of(other), 3), rel=1e-3)
    assert [p.dtype for p in one.parameters()] == [torch.float32] * 2 + [torch.float64] * 2


@every
def test_bfloat16_beside_float64(name):
    p, q = nn.Parameter(torch.full((6,), 2.0, dtype=torch.bfloat16)), nn.Parameter(torch.full((6,), 2.0).double())
    solver = ALL[name]([p, q])
    if name == "Sophia-G":
        with pytest.raises(ValueError, match="no log_softmax leads to this loss"):
            solver.step(lambda: p.square().sum().double())
        return
    losses = steps(solver, lambda: p.square().sum().double() + q.square().sum(), 5)
    assert losses[-1] < losses[0]


@every
@pytest.mark.parametrize("when", [0, 2])
def test_a_model_that_changes_its_dtype(name, when):
    """Made before `model.to(dtype)`, and stepping on after it."""
    if name == "SAM-Adam" and when:
        pytest.skip("torch's own Adam does not go on with states of another dtype")
    model, other = small_model(), small_model()
    solver = ALL[name](model.parameters())
    steps(solver, closure_of(model), when)
    model.double()
    steps(solver, closure_of(model), 3)
    assert all(p.dtype == torch.float64 for p in model.parameters())
    steps(ALL[name](other.parameters()), closure_of(other), when + 3)
    torch.testing.assert_close(values(model).float(), values(other), rtol=1e-2, atol=1e-2)


@every
def test_sparse_gradients_are_right_or_named(name):
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.Flatten(), nn.Linear(6, 2))
        solver, x, before = ALL[name](model.parameters()), torch.tensor([[0, 1], [2, 3], [1, 5]]), values(model)
        try:
            steps(solver, lambda model=model, x=x: F.cross_entropy(model(x), Y[:3]), 3)
        except RuntimeError as error:
            assert "sparse=False" in str(error)  # noqa: PT017
            assert name in SECOND | CURVED
            assert torch.equal(before, values(model))
            return
        found.append(values(model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_ngn_keeps_no_memory_of_parameters_that_are_gone():
    """Its scratch memory follows shapes and dtypes, and is no part of a copy."""
    model = small_model()
    solver = NGN(model.parameters(), 0.1, variant="d")
    steps(solver, closure_of(model), 2)
    assert "_scratch" not in solver.__getstate__()
    model.double()
    steps(solver, closure_of(model), 1)


def test_a_compiled_model_is_not_compiled_anew_at_each_step():
    compiled, count = small_model(nn.BatchNorm1d(4), nn.Dropout(0.5)), []

    def backend(graph, inputs):
        count.append(1)
        return graph.forward

    torch._dynamo.reset()
    model = torch.compile(compiled, backend=backend)
    solver = SAM(model.parameters(), 0.1)
    for k in range(4):
        solver.step(closure_of(model))
        assert int(compiled[1].num_batches_tracked) == k + 1
        if k == 0:
            first = len(count)
    assert len(count) <= first + 1
    torch._dynamo.reset()
