from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tutelage.teachers import ModuleTeacher
from tutelage.teachers.fingerprint import fingerprint_of


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def flip_one_bit(module: nn.Sequential) -> nn.Sequential:
    module[0].weight.data.view(torch.int32)[0, 0] ^= 1
    return module


def change_buffer(module: nn.Sequential) -> nn.Sequential:
    module[1].running_mean[0] += 1
    return module


def swap_two_weights(module: nn.Sequential) -> nn.Sequential:
    module[0].weight.data = module[0].weight.data.flip(0)
    return module


def other_activation(module: nn.Sequential) -> nn.Sequential:
    module[2] = nn.GELU()
    return module


@pytest.mark.parametrize(
    "change", [flip_one_bit, change_buffer, swap_two_weights, other_activation, nn.Module.double, nn.Module.bfloat16]
)
def test_it_notices_a_change(change: Callable[[nn.Module], nn.Module]) -> None:
    assert fingerprint_of(change(net())) != fingerprint_of(net())


def test_it_notices_another_shape_of_the_same_bytes() -> None:
    one, two = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    two.load_state_dict(one.state_dict())
    two.weight.data = two.weight.data.view(4, 1)
    assert fingerprint_of(one) != fingerprint_of(two)


def test_bfloat16_weights_are_read_to_the_last_bit() -> None:
    one, two = net().bfloat16(), net().bfloat16()
    assert fingerprint_of(one) == fingerprint_of(two)
    two[3].bias.data.view(torch.int16)[1] ^= 1
    assert fingerprint_of(one) != fingerprint_of(two)


def test_it_depends_neither_on_memory_layout_nor_on_mode_nor_on_addresses() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(6.0).view(2, 3))
            self.function = lambda x: x

        def extra_repr(self) -> str:
            return f"{self.function}"

    one, two = Scaled().train(), Scaled().eval()
    two.weight.data = two.weight.data.t().contiguous().t()
    assert repr(one) != repr(two)
    assert fingerprint_of(one) == fingerprint_of(two)


def test_further_settings_count() -> None:
    assert fingerprint_of(net(), ["heads=2"]) != fingerprint_of(net(), ["heads=4"]) != fingerprint_of(net())


def test_the_heads_of_a_hugging_face_model_count_although_no_weight_shows_them() -> None:
    from transformers import BertConfig, BertModel

    def with_heads(heads: int) -> ModuleTeacher:
        torch.manual_seed(0)
        size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9}
        teacher = ModuleTeacher(BertModel(BertConfig(num_attention_heads=heads, **size)))
        teacher.load(torch.device("cpu"))
        return teacher

    assert with_heads(2).fingerprint() == with_heads(2).fingerprint() != with_heads(4).fingerprint()


def test_ninety_megabytes_take_less_than_half_a_second_of_cpu() -> None:
    module = nn.Linear(4700, 4800)  # 90 MB
    fingerprint_of(module)
    start = time.process_time()
    fingerprint_of(module)
    assert time.process_time() - start < 0.5
