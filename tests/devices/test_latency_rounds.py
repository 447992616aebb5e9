"""Rounds of timed calls, against a clock that the test moves."""

from __future__ import annotations

import gc
import itertools

import pytest
from fake_clock import FakeClock, Scripted

from tutelage.devices.latency import Plan, measure


def test_samples_are_milliseconds_of_single_calls() -> None:
    clock = FakeClock()
    found = measure(
        {"teacher": clock.work(0.02), "student": clock.work(0.005)},
        rounds=6,
        seconds=6 * 0.2,
        contention=Scripted((), clock),
        clock=clock,
    )
    assert [len(calls) for calls in found.samples_ms["teacher"]] == [5] * 6
    assert [len(calls) for calls in found.samples_ms["student"]] == [20] * 6
    assert list(itertools.chain(*found.samples_ms["teacher"])) == pytest.approx([20.0] * 30)
    assert list(itertools.chain(*found.samples_ms["student"])) == pytest.approx([5.0] * 120)


def test_slow_first_calls_are_not_among_the_samples() -> None:
    clock = FakeClock()
    calls = itertools.count()
    first_is_slow = clock.work(lambda: 3.0 if next(calls) == 0 else 0.01)
    found = measure({"model": first_is_slow}, rounds=5, seconds=0.5, contention=Scripted((), clock), clock=clock)
    assert max(itertools.chain(*found.samples_ms["model"])) == pytest.approx(10.0)


def test_every_other_round_runs_in_the_reverse_order() -> None:
    clock = FakeClock()
    order: list[str] = []

    def candidate(name: str):
        def run() -> None:
            order.append(name)
            clock.now += 1.0

        return run

    measure(
        {"a": candidate("a"), "b": candidate("b")}, rounds=4, seconds=8.0, contention=Scripted((), clock), clock=clock
    )
    assert "".join(order[-8:]) == "abbaabba"


def test_a_contaminated_round_is_thrown_away_for_all_candidates_and_run_again() -> None:
    clock = FakeClock()
    # Checks come after each block: 2 a round. Check 3 is in the second round; the disturbance lengthens its samples.
    contention = Scripted({3}, clock)
    speed = clock.work(lambda: 0.05 if contention.checks == 3 else 0.01)
    found = measure({"a": speed, "b": speed}, rounds=5, seconds=0.1, contention=contention, clock=clock)
    assert (found.contaminated, found.repeated, found.kept) == (1, 1, 0)
    assert [len(found.samples_ms[name]) for name in "ab"] == [5, 5]
    assert max(itertools.chain(*found.samples_ms["a"], *found.samples_ms["b"])) == pytest.approx(10.0)


def test_repeats_end_after_half_the_time_when_the_machine_never_becomes_quiet() -> None:
    clock = FakeClock()
    found = measure(
        {"a": clock.work(1.0)}, rounds=10, seconds=10.0, contention=Scripted(range(1000), clock), clock=clock
    )
    assert len(found.samples_ms["a"]) == 10
    assert (found.repeated, found.kept, found.contaminated) == (5, 10, 15)


@pytest.mark.parametrize(
    ("seconds", "each", "rounds", "calls"),
    [
        (8.0, {"a": 0.1, "b": 0.1}, 10, {"a": 4, "b": 4}),  # 0.4 s a block
        (8.0, {"a": 0.5, "b": 0.5}, 8, {"a": 1, "b": 1}),  # 8 rounds of 1 s
        (8.0, {"a": 9.0, "b": 9.0}, 6, {"a": 1, "b": 1}),  # never under 6 rounds
        (8.0, {"a": 1e-6, "b": 0.1}, 10, {"a": 200, "b": 4}),  # never over 200 calls
    ],
)
def test_the_plan_fills_the_time_within_its_limits(seconds, each, rounds, calls) -> None:
    assert Plan.within(seconds, each, rounds=10) == Plan(rounds=rounds, calls=calls)


@pytest.mark.parametrize(
    ("seconds", "each", "rounds", "calls"),
    [
        (1.0, {"student": 1e-4, "teacher": 1e-3}, 40, {"student": 125, "teacher": 12}),  # 12.5 ms a block
        (1.0, {"student": 0.02, "teacher": 0.02}, 40, {"student": 5, "teacher": 1}),  # 200 calls: 5 a round
        (1.0, {"student": 0.02, "teacher": 0.2}, 22, {"student": 10, "teacher": 1}),  # 22 rounds are half of 10 s
        (1.0, {"student": 0.1, "teacher": 0.2}, 16, {"student": 4, "teacher": 1}),  # 16 x 0.6 s is all of 10 s
        (1.0, {"student": 0.1, "teacher": 0.5}, 15, {"student": 1, "teacher": 1}),  # 15 rounds are 9 s
        (1.0, {"student": 0.5, "teacher": 0.7}, 8, {"student": 1, "teacher": 1}),  # 15 rounds would be 18 s
        (1.0, {"student": 2.0, "teacher": 2.0}, 6, {"student": 1, "teacher": 1}),  # never under 6 rounds
    ],
)
def test_what_is_judged_takes_the_calls_and_rounds_it_needs_up_to_ten_times_the_time(
    seconds, each, rounds, calls
) -> None:
    """Catches a budget on p95 with too few calls for any verdict although there was time, and a run without an end."""
    plan = Plan.within(seconds, each, rounds=4, judged={"student": 200})
    assert plan == Plan(rounds=rounds, calls=calls)
    assert rounds == 6 or plan.rounds * sum(plan.calls[name] * each[name] for name in each) <= 10 * seconds


def test_calls_that_become_slower_than_planned_do_not_make_a_measurement_without_an_end() -> None:
    clock = FakeClock()
    calls = itertools.count()
    slows_down = clock.work(lambda: 0.01 if next(calls) < 10 else 1.0)
    found = measure(
        {"student": slows_down}, rounds=4, seconds=1.0, judged={"student": 200}, contention=Scripted((), clock),
        clock=clock,
    )  # fmt: skip
    assert len(found.samples_ms["student"]) == 6
    assert clock.now - 100.0 < 40


def test_rounds_asked_for_are_kept_where_more_than_judging_takes() -> None:
    assert Plan.within(10.0, {"student": 1e-4}, rounds=60, judged={"student": 0}).rounds == 60


def waiting(clock: FakeClock, cpu: FakeClock, wall: float, computed: float):
    """A call that takes some time and computes in a part of it."""

    def run() -> None:
        clock.now += wall
        cpu.now += computed

    return run


def test_calls_that_wait_for_the_core_in_every_round_disturb_it_although_the_kernel_is_as_slow_as_ever() -> None:
    """Catches a machine that is busy all the time: the reference is calibrated on it, and never stands out."""
    for share, disturbed in ((0.98, False), (0.5, True)):
        clock, cpu = FakeClock(), FakeClock()
        candidates = {"teacher": waiting(clock, cpu, 0.02, 0.02 * share), "student": waiting(clock, cpu, 1e-3, 1e-3)}
        found = measure(
            candidates, rounds=6, seconds=1.0, computing=candidates, contention=Scripted((), clock), clock=clock,
            cpu_clock=cpu,
        )  # fmt: skip
        assert bool(found.kept) == disturbed and found.kept in (0, 6)
        assert bool(found.repeated) == disturbed
        assert found.cpu_ms["teacher"] == pytest.approx([20.0 * share] * 6)
        assert found.cpu_ms["student"] == pytest.approx([1.0] * 6)


def test_a_teacher_that_waits_for_a_process_of_its_own_is_no_disturbance() -> None:
    clock, cpu = FakeClock(), FakeClock()
    candidates = {"teacher": waiting(clock, cpu, 0.02, 1e-4), "student": waiting(clock, cpu, 1e-3, 1e-3)}
    found = measure(
        candidates, rounds=6, seconds=1.0, computing=["student"], contention=Scripted((), clock), clock=clock,
        cpu_clock=cpu,
    )  # fmt: skip
    assert (found.contaminated, found.kept) == (0, 0)


def test_no_cpu_time_is_taken_where_it_says_nothing() -> None:
    clock = FakeClock()
    found = measure(
        {"a": clock.work(0.01)}, rounds=6, seconds=0.5, computing=None, contention=Scripted((), clock), clock=clock
    )
    assert found.cpu_ms == {} and found.contaminated == 0


def test_fewer_rounds_than_the_minimum_may_be_asked_for() -> None:
    assert Plan.within(1.0, {"a": 10.0}, rounds=2).rounds == 2


def test_garbage_collection_is_off_while_timing_and_on_again_after_an_error() -> None:
    clock = FakeClock()
    seen: list[bool] = []

    def fails() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError

    assert gc.isenabled()
    with pytest.raises(RuntimeError):
        measure({"a": fails}, contention=Scripted((), clock), clock=clock)
    assert seen == [False]
    assert gc.isenabled()
