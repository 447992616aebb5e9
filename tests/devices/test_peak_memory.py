"""Peak memory, in fresh processes: this one has a history."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEGABYTE = 2**20

MEASURE = """
import sys
from tutelage.devices.memory import peak_added_by
before, held, spike = (int(word) for word in sys.argv[1:])
block = bytearray(before)   # filled with zeros, so resident
del block
def work():
    kept = bytearray(held)
    bytearray(spike)
    return kept
print(peak_added_by(work))
"""


def peak(*, before: int = 0, held: int = 0, spike: int = 0) -> int:
    sizes = (str(size * MEGABYTE) for size in (before, held, spike))
    done = subprocess.run([sys.executable, "-c", MEASURE, *sizes], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_that_is_held_is_counted() -> None:
    assert peak(held=150) - peak(held=50) == pytest.approx(100 * MEGABYTE, rel=0.05)


def test_the_highest_counts_not_what_is_left_at_the_end() -> None:
    assert peak(held=20, spike=100) == pytest.approx(120 * MEGABYTE, rel=0.1)


def test_what_was_used_and_freed_before_does_not_count() -> None:
    assert peak(before=200, held=50) == pytest.approx(50 * MEGABYTE, rel=0.1)
