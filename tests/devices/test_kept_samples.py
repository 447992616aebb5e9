"""Timed calls in `cost.json`: small, and the numbers that follow from them follow from what is stored."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tutelage.devices import samples
from tutelage.devices.cost import Cost, Latency, ModelCost
from tutelage.devices.samples import kept, packed, unpacked
from tutelage.devices.statistics import latency_of, recomputed

SCALES = (3e-4, 0.0109, 0.0891, 1.0, 47.0, 12_345.0)


def timed(median: float, rounds: int = 40, calls: int = 200) -> list[list[float]]:
    """Calls that vary as those of a machine do, to the nanosecond and below it."""
    numbers = np.random.default_rng(5).lognormal(np.log(median), 0.15, size=(rounds, calls))
    return [[float(number) for number in one] for one in numbers]


@pytest.mark.parametrize("median", SCALES)
def test_what_is_stored_gives_the_very_numbers_that_were_judged(median: float) -> None:
    """Catches packing that loses or moves a digit, and rounding that shows in a percentile."""
    raw = timed(median, 12, 30)
    found = latency_of("torch", 1, kept(raw))
    model = ModelCost(name="student", parameters=1, embedding_parameters=0, size_bytes=4, latencies=[found])
    cost = Cost(device={}, rounds=12, models={"student": model})
    back = Cost.from_dict(json.loads(json.dumps(cost.to_dict())))
    assert back == cost and recomputed(back).models["student"].latencies == [found]
    for value, p in ((found.p50_ms, 50), (found.p95_ms, 95), (found.p99_ms, 99)):
        # half a step of four digits, and nanoseconds
        assert value == pytest.approx(np.percentile(raw, p), rel=5.1e-4, abs=1e-6)
    for ours, theirs in zip(found.samples_ms, raw, strict=True):
        np.testing.assert_allclose(ours, np.sort(theirs), rtol=0, atol=max(5.1e-4 * median, 5.1e-7))


def test_the_calls_of_a_fast_student_take_three_bytes_at_most_not_seventeen() -> None:
    cost = {"samples_ms": packed(kept(timed(0.0891)))}
    assert len(json.dumps(cost)) < 2.0 * 8000


def test_a_stranger_can_read_them_with_the_standard_library_alone() -> None:
    stored = packed([[0.01, 0.012, 0.02], [0.5]])
    assert isinstance(stored, dict) and stored["step_ms"] == 0.002
    assert json.loads(zlib.decompress(base64.b64decode(stored["packed"]))) == [[5, 1, 4], [250]]


def test_samples_of_earlier_versions_and_of_no_whole_nanoseconds_are_kept_as_they_are() -> None:
    odd = [[0.12345678, 3.0], [1e-9]]
    assert packed(odd) == odd and unpacked(odd) == odd
    for plain in ([[0.2, 0.1, 0.1]], [[]], [], [[0.0, 0.0]], [[-1.0, 2.0]]):
        assert unpacked(json.loads(json.dumps(packed(plain)))) == plain
    earlier = Latency(
        form="torch", batch=1, p50_ms=1, p95_ms=1, p95_low_ms=None, p95_high_ms=None, p99_ms=1, samples_ms=odd
    )
    model = ModelCost(name="student", parameters=1, embedding_parameters=0, size_bytes=4, latencies=[earlier])
    data = Cost(device={}, rounds=1, models={"student": model}).to_dict()
    data["models"]["student"]["latencies"][0]["samples_ms"] = odd
    assert Cost.from_dict(data).models["student"].latencies == [replace(earlier)]


@pytest.mark.parametrize("text", ["x", "", "[" * 100_000, '[["a"]]', "7"])
def test_damaged_samples_are_an_error_that_readers_of_bundles_name(text: str) -> None:
    whole = base64.b64encode(zlib.compress(text.encode())).decode()
    for stored in (whole, whole[:-4], "no base 64!"):
        with pytest.raises(ValueError, match=r"^samples_ms: "):
            unpacked({"step_ms": 1.0, "packed": stored})


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert samples.MOST_BYTES == 1 << 26
    monkeypatch.setattr(samples, "MOST_BYTES", 1 << 16)
    bomb = base64.b64encode(zlib.compress(b"[[" + b" " * (1 << 17) + b"1]]")).decode()
    with pytest.raises(ValueError, match="longer than any timing"):
        unpacked({"step_ms": 1.0, "packed": bomb})


@pytest.mark.parametrize("odd", [[[]], [[1.0], []], []])
def test_a_round_without_calls_is_no_timing(odd: list[list[float]]) -> None:
    latency = Latency(
        form="torch", batch=1, p50_ms=1, p95_ms=1, p95_low_ms=None, p95_high_ms=None, p99_ms=1, samples_ms=odd
    )
    model = ModelCost(name="student", parameters=1, embedding_parameters=0, size_bytes=1, latencies=[latency])
    assert recomputed(Cost(device={}, rounds=1, models={"student": model})).models["student"].latencies == []
