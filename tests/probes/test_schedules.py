"""Schedules decide from this call and the one before, so nothing is lost between two calls, nor by resuming."""

import pytest

from probes import At, Epochs, Every, LogSpaced, When
from probes.schedules import Moment


def steps_of(schedule, stride=1, stop=1001, start=0, epoch=lambda step: None, loss=lambda step: None):
    due, before = [], None
    for step in range(start, stop, stride):
        now = Moment(step, epoch(step), loss(step))
        if schedule.due(now, before):
            due.append(step)
        before = now
    return due


def test_every():
    assert steps_of(Every(250)) == [0, 250, 500, 750, 1000]
    assert steps_of(Every(10), stride=3, stop=40) == [0, 12, 21, 30]  # each multiple at the first call behind it
    assert steps_of(Every(10), start=57, stop=80) == [60, 70]


def test_log_spaced():
    assert steps_of(LogSpaced(1)) == [0, 1, 10, 100, 1000]
    # 10^(1/3) = 2.15, 10^(2/3) = 4.64
    assert steps_of(LogSpaced(3), stop=101) == [0, 1, 2, 5, 10, 22, 46, 100]
    assert steps_of(LogSpaced(1), stride=7, stop=200) == [0, 7, 14, 105]
    exact = {round(10 ** (i / 7)) for i in range(0, 43)} | {0}
    assert steps_of(LogSpaced(7), stop=10**5 // 2) == sorted(p for p in exact if p < 10**5 // 2)


def test_epochs():
    assert steps_of(Epochs(), stop=30, epoch=lambda step: step // 10) == [0, 10, 20]
    assert steps_of(Epochs(2), stop=60, epoch=lambda step: step / 10) == [0, 20, 40]
    assert not Epochs().due(Moment(57, 5.7), Moment(50, 5.0))  # resumed in the middle of an epoch
    assert Epochs().due(Moment(61, 6.1), Moment(50, 5.0))
    with pytest.raises(ValueError, match="epoch="):
        Epochs().due(Moment(0), None)


def test_chosen_steps():
    assert steps_of(At(5, 0, 100)) == [0, 5, 100]
    assert steps_of(At([15, 25]), stride=10, stop=50) == [20, 30]
    assert At(3, 1) == At([1, 3, 3])


def test_conditions():
    small = When(lambda now: now.loss < 0.5, every=10)
    assert steps_of(small, stop=50, loss=lambda step: 1 / (1 + step / 20)) == [30, 40]
    assert steps_of(When(lambda now: True, every=At(7)), stop=20) == [7]


@pytest.mark.parametrize("make", [Every, LogSpaced, Epochs])
@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "10"])
def test_bad_numbers(make, bad):
    with pytest.raises(ValueError, match="="):
        make(bad)


def test_bad_steps_and_conditions():
    for bad in ((), ([],), (-1,), (1.5,), ([True],)):
        with pytest.raises(ValueError, match="chosen steps"):
            At(*bad)
    with pytest.raises(ValueError, match="condition"):
        When(0.5)
    with pytest.raises(ValueError, match="every="):
        When(lambda now: True, every=0)
