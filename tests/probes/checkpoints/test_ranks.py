"""`landscape probe` on several ranks: the numbers of one process, one trace, one voice; and what ends it."""

import signal
import time

import numpy as np
import pytest
import ranks_problems as problems
import torch
from launched import lines_of, on_ranks, started, torchrun
from processes import ended
from rich.console import Console
from torch.distributed.checkpoint import save

from probes import Trace
from probes.checkpoints.arguments import parse_probes
from probes.checkpoints.run import Request, run
from probes.instruments.registry import PROBES

QUICK = ["spectrum:k=3,tol=1e-12", "density:probes=2,steps=6", "trace:method=hutchinson,matvecs=10"]
# these go by the order in which batches come together, or say in words how something was found
OWN = ("noise_trace_stderr", "noise_scale_stderr", "checked", "matvecs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoints(name, folder, steps=(0, 10)):
    paths = []
    for step in steps:
        torch.manual_seed(step)
        paths.append(folder / f"{name}-{step}.pt")
        torch.save(getattr(problems, name)().model.state_dict(), paths[-1])
    return paths


def arguments(name, paths, probes=QUICK, *more):
    named = [word for probe in probes for word in ("--probe", probe)]
    return ["probe", *paths, "--problem", f"ranks_problems:{name}", *named, "-o", "ranks.h5", *more]


def one_process(name, paths, probes, folder):
    steps = [(int(path.stem.rpartition("-")[2]), path) for path in paths]
    run(
        Request(steps, f"ranks_problems:{name}", parse_probes(probes, "hessian"), folder / "one.h5"),
        Console(quiet=True),
    )
    return Trace.open(folder / "one.h5")


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        for field in expected[name].fields:
            a, b = found[name][field], expected[name][field]
            if a.dtype == object:  # rows of different lengths
                a, b = np.concatenate([*a]), np.concatenate([*b])
            if a.dtype.kind == "f" and field not in OWN:
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=f"{name}.{field}")
            elif field not in OWN:
                assert (a == b).all(), (name, field)


def test_torchrun_measures_what_one_process_does(folder):
    paths = checkpoints("batches", folder)
    status, out, err = torchrun(arguments("batches", paths), folder)
    assert status == 0, err
    assert out.count("largest eigenvalues") == 1  # one voice
    assert err.count("2 ranks share the data") == 1
    assert_same(Trace.open(folder / "ranks.h5"), one_process("batches", paths, QUICK, folder))


def test_other_commands_are_the_first_ranks(folder):
    for status, out, err in on_ranks(["probes"], folder):
        assert (status, err) == (0, "")
        assert ("spectrum" in out) == (out != "")
    first, second = on_ranks(["show", "nothing.h5"], folder)
    assert first[0] == 1
    assert second == (0, "", "")


def test_what_all_ranks_meet_is_said_once(folder):
    paths = checkpoints("batches", folder, (0,))
    first, second = on_ranks(arguments("batches", paths, ["spectrum:k=300"]), folder)
    assert (first[0], second[0]) == (1, 1)
    (line,) = lines_of(first[2])
    assert "k=300 eigenvalues" in line
    assert second[1:] == ("", "")
    assert not (folder / "ranks.h5").exists()


@pytest.mark.slow
def test_a_problem_that_fails_on_one_rank_ends_all(folder):
    paths = checkpoints("batches", folder, (0,))
    first, second = on_ranks(arguments("failing", paths), folder)
    assert (first[0], second[0]) == (1, 1)
    assert "raised ValueError: no such table" in lines_of(second[2])[0]
    assert "rank" in lines_of(first[2])[0]
    assert len(lines_of(first[2])) == len(lines_of(second[2])) == 1


def test_data_that_fails_on_one_rank_ends_all_with_its_reason(folder):
    paths = checkpoints("batches", folder, (0,))
    first, second = on_ranks(arguments("raising", paths), folder)
    assert (first[0], second[0]) == (1, 1)
    (line,) = lines_of(first[2])
    assert "rank 1: " in line
    assert "the disk of rank 1 is gone" in line


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "struck"])
def test_a_rank_that_ends_in_the_middle_ends_all_and_the_trace_is_whole(folder, how):
    paths = checkpoints(how, folder)
    begun = time.monotonic()
    first, second = on_ranks(arguments(how, paths, ["trace:method=hutchinson,matvecs=4"]), folder, seconds=60)
    assert time.monotonic() - begun < 60
    assert second[0] == (-signal.SIGKILL if how == "killed" else 1)
    assert first[0] == 1
    (line,) = lines_of(first[2])
    assert ("another rank is gone" if how == "killed" else "rank 1: a cosmic ray") in line
    assert "what was measured before is kept in ranks.h5, go on with: torchrun --nproc-per-node 2 -m probes " in line
    assert line.endswith(" --resume")
    trace = Trace.open(folder / "ranks.h5")
    assert trace["trace"]["step"].tolist() == [0]
    assert trace["loss"]["step"].tolist() == [0]
    (folder / "now").unlink()
    (folder / "calm").touch()
    again = on_ranks(arguments(how, paths, ["trace:method=hutchinson,matvecs=4"], "--resume"), folder)
    assert [status for status, _, _ in again] == [0, 0], again
    assert Trace.open(folder / "ranks.h5")["trace"]["step"].tolist() == [0, 10]


@pytest.mark.slow
def test_ctrl_c_is_the_first_ranks(folder):
    (path,) = checkpoints("slowly", folder, (0,))
    processes = started(arguments("slowly", [path], ["trace:method=hutchinson,matvecs=100000"]), folder)
    while not (folder / "ranks.h5").exists():
        time.sleep(0.1)
    time.sleep(0.5)
    for process in processes[::-1]:
        process.send_signal(signal.SIGINT)
    first, second = ended(processes, 60)
    assert (first[0], second[0]) == (130, 130), (first, second)
    assert lines_of(first[2]) == ["landscape: interrupted; nothing was measured"], first
    assert second[1:] == ("", "")
    assert not (folder / "ranks.h5").exists()


@pytest.mark.slow
def test_a_checkpoint_that_is_missing_on_one_rank_ends_all(folder):
    checkpoints("batches", folder, (0,))
    words = arguments("batches", ["here/batches-0.pt"], QUICK[:1])
    (folder / "here").mkdir()
    (folder / "batches-0.pt").rename(folder / "here" / "batches-0.pt")
    (folder / "elsewhere").mkdir()
    first, second = ended(started(words, [folder, folder / "elsewhere"]), 100)
    assert (first[0], second[0]) == (1, 1)
    assert "rank 1: " in lines_of(first[2])[0]
    assert "here/batches-0.pt" in lines_of(first[2])[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "world"),
    [
        ("transformer", 2),
        ("one_batch", 2),
        ("loader", 2),
        ("stream", 2),
        ("one_for_all", 2),
        ("batches", 3),
        ("own_shard", 2),
        ("batches", 4),
    ],
)
def test_ranks_measure_what_one_process_does(folder, name, world):
    paths = checkpoints(name, folder)
    for status, _, err in on_ranks(arguments(name, paths), folder, world):
        assert status == 0, err
    assert_same(Trace.open(folder / "ranks.h5"), one_process(name, paths, QUICK, folder))


def test_running_statistics_are_those_of_whole_batches(folder):
    name = "norm_of_one_batch"
    paths = checkpoints(name, folder)
    words = ["connect", *paths, "--problem", f"ranks_problems:{name}", "--points", "3", "--training", "5"]
    for status, _, err in on_ranks([*words, "-o", "ranks.h5"], folder):
        assert status == 0, err
    (status, _, err), *_ = on_ranks([*words, "-o", "one.h5"], folder, 1)
    assert status == 0, err
    found, expected = (Trace.open(folder / file)["connection"].row() for file in ("ranks.h5", "one.h5"))
    for field in ("straight", "trained", "recomputed", "eigenvalue"):
        np.testing.assert_allclose(found[field], expected[field], rtol=1e-6, err_msg=field)


@pytest.mark.slow
def test_all_probes_are_those_of_one_process(folder):
    training = {"optimizer", "batch", "previous"}
    probes = [probe.name for probe in parse_probes(list(PROBES), "hessian") if not training & probe.needs]
    paths = checkpoints("batches", folder)
    for status, _, err in on_ranks(arguments("batches", paths, probes), folder):
        assert status == 0, err
    assert_same(Trace.open(folder / "ranks.h5"), one_process("batches", paths, probes, folder))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_a_sharded_model_takes_folders_and_files(folder):
    first, path = checkpoints("sharded", folder)
    saved = folder / "saved-0"
    save(torch.load(first, weights_only=True), checkpoint_id=saved, no_dist=True)
    first.unlink()
    for status, _, err in on_ranks(arguments("sharded", [saved, path]), folder):
        assert status == 0, err
    assert_same(Trace.open(folder / "ranks.h5"), one_process("sharded", [saved, path], QUICK, folder))
