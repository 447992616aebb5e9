from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tutelage.errors import ModelError, SignalError
from tutelage.losses.hint import half_squared_error
from tutelage.signals import Request
from tutelage.taps import Taps, find_layer, layers, observe


class Net(nn.Module):
    """A convolution whose output an in-place ReLU overwrites, and a block that may be called again."""

    def __init__(self, *, calls: int = 1, recompute: bool = False, fails: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.head = nn.Linear(3, 2)
        self.unused = nn.Linear(3, 3)
        self.calls, self.recompute, self.fails = calls, recompute, fails

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x)).mean((2, 3))
        for _ in range(self.calls):
            h = checkpoint(self.block, h, use_reentrant=False) if self.recompute else self.block(h)
        if self.fails:
            raise RuntimeError("in the middle")
        return self.head(h)


class Rows(nn.Module):
    """Puts out a tuple and a mapping, as attention blocks and Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden, _ = self.lstm(ids * mask[..., None])
        return {"logits": self.head(hidden.mean(1))}


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 1, 5, 5)


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_an_in_place_operation_after_the_tap_does_not_change_the_capture(x: Tensor) -> None:
    net = Net()
    with Taps(net, ["stem"]) as taps:
        net(x)
        captured = taps.take()["stem"]
    torch.testing.assert_close(captured, net.stem(x))
    assert (captured < 0).any()


def test_gradient_reaches_the_layers_before_the_tap_and_not_those_after(x: Tensor) -> None:
    net = Net()
    with Taps(net, ["block.0"]) as taps:
        net(x)
        taps.take()["block.0"].square().sum().backward()
    assert net.stem.weight.grad is not None
    assert net.block[0].weight.grad is not None
    assert net.head.weight.grad is None


def test_two_models_of_one_class_do_not_share_hooks(x: Tensor) -> None:
    net, other = Net(), Net()
    with Taps(net, ["stem"]) as taps:
        other(x)
        assert hooks(other) == 0
        with pytest.raises(SignalError, match="not called"):
            taps.take()
        net(x)
        other(x)
        torch.testing.assert_close(taps.take()["stem"], net.stem(x))


def test_hooks_are_gone_after_use_and_after_an_exception(x: Tensor) -> None:
    net = Net()
    with Taps(net, ["stem", "head"]):
        assert hooks(net) > 0
    assert hooks(net) == 0
    failing = Net(fails=True)
    with pytest.raises(RuntimeError, match="in the middle"):
        observe(failing, x, Request(output=True, features=frozenset({"stem"})))
    assert hooks(failing) == 0


def test_a_pass_that_failed_leaves_nothing_for_the_next(x: Tensor) -> None:
    net = Net(fails=True)
    with Taps(net, ["stem"]) as taps:
        with pytest.raises(RuntimeError, match="in the middle"):
            net(x)
        net.fails = False
        net(x + 1)
        torch.testing.assert_close(taps.take()["stem"], net.stem(x + 1))


def test_a_pass_that_failed_does_not_leave_the_taps_listening(x: Tensor) -> None:
    net = Net(fails=True)
    with Taps(net, ["stem"]) as taps:
        with pytest.raises(RuntimeError, match="in the middle"):
            net(x)
        net.stem(x)
        assert len(taps._captured["stem"]) == 1


def test_a_misspelt_path_names_the_nearest_layer_and_sets_no_hook() -> None:
    net = Net()
    with pytest.raises(ModelError, match=r"did you mean `block\.0`"):
        Taps(net, ["stem", "blok.0"], model="teacher")
    assert hooks(net) == 0
    with pytest.raises(ModelError, match="dotted path"):
        find_layer(net, "")


def test_a_layer_under_two_names_is_found_by_both() -> None:
    net = Net()
    net.alias = net.head
    assert find_layer(net, "alias") is find_layer(net, "head")


def test_a_layer_called_twice_is_refused_with_the_number_of_calls(x: Tensor) -> None:
    with pytest.raises(SignalError, match=r"`block` of the student[\s\S]*3 calls"):
        observe(Net(calls=3), x, Request(features=frozenset({"block"})), model="student")


def test_passes_that_nobody_took_do_not_count_as_calls(x: Tensor) -> None:
    net = Net()
    with Taps(net, ["stem"]) as taps:
        net(x)
        net(x + 1)
        torch.testing.assert_close(taps.take()["stem"], net.stem(x + 1))


def test_a_layer_that_no_pass_reaches_is_refused(x: Tensor) -> None:
    with pytest.raises(SignalError, match=r"`unused` of the model[\s\S]*not called"):
        observe(Net(), x, Request(features=frozenset({"unused"})))


def test_taking_twice_does_not_give_old_features(x: Tensor) -> None:
    net = Net()
    with Taps(net, ["stem"]) as taps:
        net(x)
        taps.take()
        with pytest.raises(SignalError, match="not called"):
            taps.take()


def test_recomputation_in_the_backward_pass_is_no_second_call(x: Tensor) -> None:
    """Activation checkpointing runs the block again, hooks included; the gradient is that of a plain pass."""
    plain, recomputing = Net(), Net(recompute=True)
    recomputing.load_state_dict(plain.state_dict())
    for net in (plain, recomputing):
        with Taps(net, ["block.0"]) as taps:
            for _ in range(2):
                output = net(x)
                (output.sum() + taps.take()["block.0"].square().sum()).backward()
            assert taps._captured == {}
    torch.testing.assert_close(recomputing.stem.weight.grad, plain.stem.weight.grad)
    torch.testing.assert_close(recomputing.block[0].weight.grad, plain.block[0].weight.grad)


def test_the_first_tensor_of_tuples_and_mappings_is_captured() -> None:
    rows = Rows()
    inputs = {"ids": torch.randn(2, 5, 3), "mask": torch.ones(2, 5)}
    signals = observe(rows, inputs, Request(output=True, features=frozenset({"lstm"})))
    assert signals.output is not None
    assert signals.output.shape == (2, 2)
    assert signals.features["lstm"].shape == (2, 5, 4)


def test_only_what_was_requested_is_given(x: Tensor) -> None:
    signals = observe(Net(), x, Request(features=frozenset({"stem"})))
    assert signals.output is None
    assert set(signals.features) == {"stem"}


def test_listing_gives_shapes_parameters_and_calls_and_leaves_the_model_as_it_was(x: Tensor) -> None:
    net = Net(calls=2).train()
    net.block.eval()
    found = {layer.path: layer for layer in layers(net, x)}
    assert list(found) == ["stem", "act", "block.0", "block.1", "block", "head"]
    assert found["stem"].shape == (4, 3, 5, 5)
    assert (found["head"].kind, found["head"].parameters, found["head"].calls) == ("Linear", 8, 1)
    assert found["block"].calls == 2
    assert net.training
    assert not net.block.training
    assert hooks(net) == 0


def loss_of(net: nn.Module, taps: Taps, x: Tensor) -> Tensor:
    """A loss on the output and on two tapped layers, one of which is overwritten in place."""
    output, features = net(x), taps.take()
    terms = [half_squared_error(features[path], torch.ones_like(features[path])) for path in ("stem", "block.0")]
    return output.square().mean() + terms[0].mean() + terms[1].mean()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_taps_set_before_compile_give_the_same_gradient_without_recompiling(x: Tensor, backend: str) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    net = Net()
    with Taps(net, ["stem", "block.0"]) as taps:
        expected = torch.autograd.grad(loss_of(net, taps, x), net.stem.weight)[0]
        compiled = torch.compile(net, backend=backend, fullgraph=True)
        for _ in range(3):
            found = torch.autograd.grad(loss_of(compiled, taps, x), net.stem.weight)[0]
            torch.testing.assert_close(found, expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


class Learner(nn.Module):
    """Its forward gives the output and what the taps caught, so DDP sees all that a loss is made of."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.taps = Taps(net, ["stem", "block.0"])

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x), self.taps.take()


def global_loss(output: Tensor, features: dict[str, Tensor], count: int) -> Tensor:
    """The loss's sum over these samples, divided by the global count."""
    stem = half_squared_error(features["stem"], torch.ones_like(features["stem"])).mean((1, 2))
    block = half_squared_error(features["block.0"], torch.ones_like(features["block.0"]))
    return (output.square().mean(1) + stem + block).sum() / count


def seeded() -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    net = Net()
    del net.unused
    return net, torch.randn(6, 1, 5, 5)


def rank(index: int, folder: str) -> None:
    """One of two processes: uneven pieces of one batch through DDP."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2)
    net, x = seeded()
    learner = DistributedDataParallel(Learner(net))
    output, features = learner(x[:2] if index == 0 else x[2:])
    (2 * global_loss(output, features, len(x))).backward()  # DDP takes the mean of the two processes
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    torch.save(gradients, f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(rank, args=(str(tmp_path),), nprocs=2)
    net, x = seeded()
    learner = Learner(net)
    global_loss(*learner(x), len(x)).backward()
    for index in range(2):
        found = torch.load(tmp_path / f"{index}.pt", weights_only=True)
        assert set(found) == {name for name, _ in net.named_parameters()}
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-7)
