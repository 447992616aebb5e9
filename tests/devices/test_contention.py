"""The reference kernel tells a shared machine from a quiet one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_clock import FakeClock

from tutelage.devices import contention
from tutelage.devices.contention import Contention, fine_clock, stolen_share


@pytest.fixture(autouse=True)
def _nothing_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "stolen_share", lambda since: (0.0, (0, 0)))


def at_durations(durations: list[float]) -> Contention:
    clock = FakeClock()
    left = iter(durations)
    probe = Contention(kernel=clock.work(lambda: next(left)), clock=clock, calibration=3)
    probe.calibrate()
    return probe


def test_a_kernel_slower_than_one_and_a_half_medians_is_contention() -> None:
    warm_up, median = 50.0, 2.0
    probe = at_durations([warm_up, median, median, median, 2.9, 3.1, 2.0])
    assert probe.quiet()
    assert not probe.quiet()
    assert probe.quiet()


def test_the_median_is_of_all_runs_so_one_slow_calibration_does_not_hide_contention() -> None:
    probe = at_durations([2.0, 9.0, 2.0, 2.0, 3.1])
    assert not probe.quiet()


def test_stolen_time_is_contention_even_when_the_kernel_was_lucky(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = at_durations([2.0] * 6)
    monkeypatch.setattr(contention, "stolen_share", lambda since: (0.06, (0, 0)))
    assert not probe.quiet()
    monkeypatch.setattr(contention, "stolen_share", lambda since: (0.04, (0, 0)))
    assert probe.quiet()


def test_steal_is_read_from_the_eighth_field_of_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["cpu  100 0 100 800 0 0 0 10 0 0\ncpu0 1 1", "cpu  150 0 110 830 0 0 0 30 0 0\ncpu0 1 1"])
    monkeypatch.setattr(Path, "read_text", lambda self: next(lines))
    share, reading = stolen_share(None)
    assert share == 0.0
    share, _ = stolen_share(reading)
    assert share == pytest.approx(20 / 110)


def test_no_steal_where_the_system_does_not_count_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert stolen_share((0, 0)) == (0.0, (0, 0))


def test_a_kernel_that_was_slow_from_the_start_is_held_against_its_cpu_time() -> None:
    """Catches calibration on a machine that is busy all the time, which makes slow the usual."""
    clock, cpu = FakeClock(), FakeClock()

    def preempted() -> None:
        clock.now += 0.005
        cpu.now += 0.002

    probe = Contention(kernel=preempted, clock=clock, cpu_clock=cpu, calibration=3)
    probe.calibrate()
    assert not probe.quiet()
    blind = Contention(kernel=preempted, clock=clock, calibration=3)
    blind.calibrate()
    assert blind.quiet()


def test_a_cpu_clock_that_moves_in_steps_of_a_scheduler_tick_is_not_used() -> None:
    ticks = iter(0.0156 * (n // 100) for n in range(10**6))
    assert fine_clock(lambda: next(ticks)) is None
    fine = iter(1e-7 * n for n in range(10**6))
    assert fine_clock(lambda: next(fine)) is not None
