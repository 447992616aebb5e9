from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import pool
from test_review_kd import conv

from tutelage.errors import SignalError
from tutelage.losses.semantic_calibration import Regressor, SemanticCalibration, SimilarityEmbedding


def golden(layers: list[str], teacher_layers: list[str], temperature: float = 1.0, samples: int = 4):
    def values(n: Numbers) -> Array:
        student = {path: n.student[path].reshape(*n.student[path].shape[:2], -1) for path in layers}
        B, total = len(n.weights), np.zeros(len(n.weights))

        def embedded(kind: str, path: str, x: Array) -> Array:
            flat, key = x.reshape(B, -1), f"{kind}.{path.replace('.', '/')}"
            rows = np.zeros((B, samples))
            for i in range(B):
                for j in range(B):
                    rows[i, j] = (flat[i] * flat[j]).sum()
            hidden = np.maximum(rows @ n.trained[f"{key}.inner.weight"].T + n.trained[f"{key}.inner.bias"], 0)
            out = hidden @ n.trained[f"{key}.outer.weight"].T + n.trained[f"{key}.outer.bias"]
            return out / np.sqrt((out**2).sum(1, keepdims=True))

        keys = [embedded("keys", path, n.teacher[path]) for path in teacher_layers]
        for path in layers:
            query = embedded("queries", path, student[path])
            alike = np.stack([(query * key).sum(1) for key in keys], 1) / temperature
            share = np.exp(alike - alike.max(1, keepdims=True))
            share /= share.sum(1, keepdims=True)
            for index, other in enumerate(teacher_layers):
                s, t = (x.reshape(*x.shape[:2], *(x.shape[2:] or (1, 1))) for x in (n.student[path], n.teacher[other]))
                size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
                x, key = pool(s, size), f"regressors.{path.replace('.', '/')} to {other.replace('.', '/')}"
                for number, name in enumerate(("first", "second", "third")):
                    x = conv(x, n.trained[f"{key}.{name}.weight"], n.trained[f"{key}.{name}.bias"])
                    x = x if number == 2 else np.maximum(x, 0)
                error = ((x - pool(t, size)) ** 2).reshape(B, -1).mean(1)
                total = total + share[:, index] * error / len(layers)
        return total

    return values


S, T = ["a.0", "a.1"], ["b.0", "b.1"]


def repeat(regressor: Regressor) -> Regressor:
    """Set to put out what it reads, with numbers above -10 (the ReLUs are then passed by all)."""
    with torch.no_grad():
        for layer in (regressor.first, regressor.second, regressor.third):
            layer.weight.zero_()
            layer.bias.zero_()
        regressor.first.weight[0], regressor.third.weight[0, 0] = 1, 1
        regressor.second.weight[:, :, 1, 1] = torch.eye(2)
        regressor.first.bias.fill_(10)
        regressor.third.bias.fill_(-10)
    return regressor


def repeats() -> SemanticCalibration:
    """Layers that find their like, `a.0` in `b.0` and `a.1` in `b.1`, and put out what they read."""
    loss = SemanticCalibration(S, T, 4, reduction=1, temperature=0.05)
    torch.manual_seed(0)
    one = SimilarityEmbedding(4, 4)
    other = copy.deepcopy(one)
    with torch.no_grad():
        for parameter in other.outer.parameters():
            parameter.neg_()
    for networks, side in ((loss.queries, "a"), (loss.keys, "b")):
        networks[f"{side}/0"], networks[f"{side}/1"] = copy.deepcopy(one), copy.deepcopy(other)
    for index in (0, 1):
        loss.regressors[f"a/{index} to b/{index}"] = repeat(Regressor(1, 1))
    return loss


CASES = {
    "maps": Case(
        lambda: SemanticCalibration(S, T, 4, reduction=2, temperature=0.5),
        {"a.0": (1, 3, 3), "a.1": (2, 2, 2)},
        {"b.0": (1, 2, 4), "b.1": (2, 2, 2)},
        golden(S, T, 0.5),
    ),
    "maps and vectors": Case(
        lambda: SemanticCalibration(S, T, 4),
        {"a.0": (2, 2, 2), "a.1": (3,)},
        {"b.0": (2,), "b.1": (1, 2, 1)},
        golden(S, T),
    ),
    "smaller batch": Case(
        lambda: SemanticCalibration(["a"], T, 7),
        {"a": (2, 2, 2)},
        {"b.0": (1, 2, 2), "b.1": (2, 2, 2)},
        golden(["a"], T, samples=7),
    ),
    "repeats": Case(
        repeats,
        {"a.0": (1, 3, 3), "a.1": (1, 2, 2)},
        {"b.0": (1, 3, 3), "b.1": (1, 2, 2)},
        golden(S, T, 0.05),
        floor=0.0,
    ),
}


def plain(s: dict[str, torch.Tensor], t: dict[str, torch.Tensor], loss: SemanticCalibration) -> torch.Tensor:
    def embedded(networks, path: str, x: torch.Tensor) -> torch.Tensor:
        flat, made = x.flatten(1), networks[path.replace(".", "/")]
        return F.normalize(made.outer(F.relu(made.inner(flat @ flat.T))))

    keys = torch.stack([embedded(loss.keys, path, t[path]) for path in T], 2)
    total = torch.zeros(())
    for path in S:
        share = torch.softmax((embedded(loss.queries, path, s[path])[:, None] @ keys)[:, 0], -1)
        for index, other in enumerate(T):
            x, y = s[path], t[other]
            if x.shape[2] > y.shape[2]:
                x = F.adaptive_avg_pool2d(x, y.shape[2:])
            elif x.shape[2] < y.shape[2]:
                y = F.adaptive_avg_pool2d(y, x.shape[2:])
            made = loss.regressors[f"{path} to {other}".replace(".", "/")]
            x = made.third(F.relu(made.second(F.relu(made.first(x)))))
            total = total + (share[:, index] * F.mse_loss(x, y, reduction="none").mean((1, 2, 3))).mean()
    return total / len(S)


PLAIN = {
    "two by two": Plain(
        lambda: SemanticCalibration(S, T, 16),
        {"a.0": (16, 16, 16), "a.1": (32, 8, 8)},
        {"b.0": (32, 16, 16), "b.1": (64, 8, 8)},
        lambda s, t, labels, loss: plain(s, t, loss),
        samples=16,
    ),
}


def test_a_layer_that_is_alike_counts_more_than_one_that_is_not() -> None:
    """Attention over the student's layers, or over the batch, instead of over the teacher's layers."""
    numbers = CASES["maps"].draw()
    loss = SemanticCalibration(S, T, 4, reduction=2, temperature=1e-3)
    loss.introduce(modules={}, rows=4)
    torch.manual_seed(0)
    args = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    loss.prepare(*args)
    for path in ("queries", "keys"):
        for made in getattr(loss, path).values():
            torch.nn.init.zeros_(made.outer.weight)
            torch.nn.init.zeros_(made.outer.bias)
            made.outer.bias.data[0] = 1
    loss.keys["b/1"].outer.bias.data.neg_()  # the second layer of the teacher is unlike every layer of the student
    chosen = [loss._distance(path, "b.0", args[0].features[path], args[1].features["b.0"]) for path in S]
    torch.testing.assert_close(loss(*args), sum(chosen) / 2)


def test_a_smaller_last_batch_needs_no_network_of_its_own() -> None:
    numbers = CASES["smaller batch"].draw()
    loss = prepared(CASES["smaller batch"], numbers)
    three = Numbers(
        {"a": numbers.student["a"][:3]},
        {path: numbers.teacher[path][:3] for path in T},
        numbers.weights[:3],
    )
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    student, teacher = signals_of(three.student, torch.float64), signals_of(three.teacher, torch.float64)
    loss.prepare(student, teacher, batch_of(three))
    assert loss(student, teacher, batch_of(three)).shape == (3,)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loss.state_dict().items())
    assert loss.state_dict().keys() == before.keys()


@pytest.mark.parametrize("samples", [1, 5])
def test_a_batch_of_one_and_one_that_is_too_large_are_refused(samples: int) -> None:
    case = Case(
        lambda: SemanticCalibration(["a"], ["b"], 4), {"a": (2, 2, 2)}, {"b": (2,)}, golden(["a"], ["b"]), samples=5
    )
    numbers = case.draw()
    part = Numbers({"a": numbers.student["a"][:samples]}, {"b": numbers.teacher["b"][:samples]}, np.ones(samples))
    with pytest.raises(SignalError, match="2 to 4 samples"):
        prepared(case, part)


def test_tokens_are_refused_by_the_name_of_the_layer() -> None:
    case = Case(lambda: SemanticCalibration(["a"], ["b"], 4), {"a": (3, 2)}, {"b": (2,)}, golden(["a"], ["b"]))
    with pytest.raises(SignalError, match=r"`a` of the student[\s\S]*HiddenState"):
        prepared(case, case.draw())


def test_models_of_other_channels_are_refused_once_the_regressor_is_made() -> None:
    loss = prepared(CASES["repeats"], CASES["repeats"].draw())
    other = Case(
        repeats, {"a.0": (2, 3, 3), "a.1": (1, 2, 2)}, {"b.0": (1, 3, 3), "b.1": (1, 2, 2)}, golden(S, T)
    ).draw()
    student, teacher = signals_of(other.student, torch.float64), signals_of(other.teacher, torch.float64)
    with pytest.raises(SignalError, match="forget"):
        loss.prepare(student, teacher, batch_of(other))


@pytest.mark.parametrize(
    "arguments",
    [
        {"layers": []},
        {"teacher_layers": ["b", "b"]},
        {"samples": 1},
        {"reduction": 0},
        {"temperature": 0.0},
    ],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must"):
        SemanticCalibration(**{"layers": ["a"], "teacher_layers": ["b"], "samples": 4, **arguments})
