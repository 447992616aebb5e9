from __future__ import annotations

import pytest

from tutelage.devices.target import Target, usable_cores
from tutelage.errors import UserError


@pytest.mark.parametrize(
    ("name", "kind", "index", "threads", "torch_name"),
    [
        ("cpu:1", "cpu", 0, 1, "cpu"),
        ("CPU:1", "cpu", 0, 1, "cpu"),
        ("cpu", "cpu", 0, usable_cores(), "cpu"),
        ("cuda", "cuda", 0, 1, "cuda:0"),
        ("cuda:3", "cuda", 3, 1, "cuda:3"),
    ],
)
def test_the_number_is_threads_on_a_cpu_and_an_index_on_cuda(name, kind, index, threads, torch_name) -> None:
    target = Target.parse(name)
    assert (target.kind, target.index, target.threads, target.torch_name) == (kind, index, threads, torch_name)
    assert Target.parse(target.name) == target


@pytest.mark.parametrize("name", ["cpu:0", "cpu:100000", "gpu", "cpu:one", "cpu:1:2", ""])
def test_impossible_devices_are_refused_with_what_would_be_possible(name) -> None:
    with pytest.raises(UserError) as caught:
        Target.parse(name, key="measure.device")
    assert caught.value.key == "measure.device"
    assert repr(name) in str(caught.value)
    assert caught.value.mend
