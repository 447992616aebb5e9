"""The losses of textbrewer 0.2.1 (`textbrewer.losses`, functions) that tutelage has too, and those it has not."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from others.pair import Given, Ours, Pair, Tensors

LIBRARY, VERSION = "textbrewer", "0.2.1"
Run = Callable[[Tensors, Tensors], Tensor]
HIDDEN = {"pairs": {"s.1": "t.3"}}
HEADS = 12
ATTENTION = {"pairs": {"a": "b"}, "student_heads": HEADS, "teacher_heads": HEADS}


def theirs(name: str) -> Callable[..., Tensor]:
    """A function of their module of losses."""
    found: Callable[..., Tensor] = getattr(importlib.import_module("textbrewer.losses"), name)
    return found


def on(student: str, teacher: str, name: str, *, masked: bool = False, **named: Any) -> Callable[[Given], Run]:
    """Theirs on one signal of each model, with the mask of the tokens or without."""

    def build(given: Given) -> Run:
        loss, more = theirs(name), named | ({"mask": given.mask} if masked else {})
        return lambda s, t: loss(s[student], t[teacher], **more)

    return build


def scores(query: Tensor, key: Tensor) -> Tensor:
    """What attention takes the softmax of, as one would write it: `[B, L, D]` twice -> `[B, heads, L, L]`."""
    q, k = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, key))
    return q @ k.mT / math.sqrt(q.shape[-1])


def attention(signals: Tensors, module: str) -> Tensor:
    """The scores from what the projections of a module put out."""
    return scores(signals[f"{module}.query"], signals[f"{module}.key"])


def on_attention(name: str, *, masked: bool, probabilities: bool = False) -> Callable[[Given], Run]:
    """Theirs on the scores of attention, or on its probabilities."""

    def build(given: Given) -> Run:
        loss, more = theirs(name), ({"mask": given.mask} if masked else {})

        def run(s: Tensors, t: Tensors) -> Tensor:
            maps = attention(s, "a"), attention(t, "b")
            return loss(*(x.softmax(-1) for x in maps), **more) if probabilities else loss(*maps, **more)

        return run

    return build


def longer_counts_more(ours: Ours) -> Tensor:
    """What att_mse_loss computes with a mask: the mean over all pairs of tokens of the batch."""
    lengths = ours.batch.mask.sum(1, keepdim=True)
    return (ours.values * ours.batch.mask * lengths).sum() / lengths.square().sum()


def without_negatives(ours: Ours) -> Tensor:
    """What att_mse_loss computes without a mask: scores up to -0.001 taken for masked ones, and set to 0."""
    s, t = (x.where(x > -1e-3, 0.0) for x in (attention(ours.student, "a"), attention(ours.teacher, "b")))
    return F.mse_loss(s, t)


def with_entropy(ours: Ours) -> Tensor:
    """Ours with the mean entropy of the teacher's attention, a constant."""
    p = attention(ours.teacher, "b").softmax(-1)
    return ours.mean - torch.special.xlogy(p, p).sum(-1).mean()


def gram(given: Given) -> Run:
    """fsp_loss on maps as if their places were tokens."""
    loss = theirs("fsp_loss")

    def both(signals: Tensors, model: str) -> list[Tensor]:
        return [signals[f"{model}.{at}"].flatten(2).mT for at in (0, 1)]

    return lambda s, t: loss(both(s, "a"), both(t, "b"))


def places(given: Given) -> Run:
    """mmd_loss of a layer with itself, on maps as if their places were tokens, each channel of length 1."""
    loss = theirs("mmd_loss")

    def both(maps: Tensor) -> list[Tensor]:
        return [F.normalize(maps.flatten(2), dim=2).mT] * 2

    return lambda s, t: loss(both(s["a"]), both(t["b"]))


PAIRS = [
    Pair(
        "LogitMSE",
        "logits",
        "kd_mse_loss(temperature=4)",
        on("output", "output", "kd_mse_loss", temperature=4.0),
        formula="theirs = ours / T²",
        why="Theirs divides the logits by a temperature, and the squares so by T²; ours has none, for it would be a "
        "factor and no more.",
        convert=lambda o: o.mean / 16,
    ),
    Pair(
        "SoftCrossEntropy",
        "1000 classes",
        "kd_ce_loss(temperature=4)",
        on("output", "output", "kd_ce_loss", temperature=4.0),
        settings={"temperature": 4.0},
        formula="theirs = ours / T²",
        why="The factor T² is neither in theirs nor in its training loops: the gradient shrinks as T grows.",
        convert=lambda o: o.mean / 16,
    ),
    Pair(
        "HiddenState",
        "same width",
        "hid_mse_loss(mask=mask)",
        on("s.1", "t.3", "hid_mse_loss", masked=True),
        settings=HIDDEN,
        padding=True,
    ),
    Pair(
        "CosineHidden",
        "tokens",
        "cos_loss(mask=mask)",
        on("s.1", "t.3", "cos_loss", masked=True),
        settings=HIDDEN,
        padding=True,
    ),
    Pair(
        "CosineHidden",
        "tokens",
        "pkd_loss() of vectors",
        on("s.1", "t.3", "pkd_loss"),
        settings=HIDDEN,
        formula="theirs = ours · 2",
        why="Patient distillation's squared distance of two vectors of length 1 is twice one minus their cosine.",
        convert=lambda o: o.mean * 2,
        size={"student": {"s.1": (768,)}, "teacher": {"t.3": (768,)}, "tokens": None, "samples": 1024},
    ),
    Pair(
        "AttentionMap",
        "tokens",
        "att_mse_loss(mask=mask), without padding",
        on_attention("att_mse_loss", masked=True),
        settings=ATTENTION,
    ),
    Pair(
        "AttentionMap",
        "tokens",
        "att_mse_loss(mask=mask), with padding",
        on_attention("att_mse_loss", masked=True),
        settings=ATTENTION,
        formula="theirs = Σ n_i · (values of row i) / Σ n_i², with n_i tokens in row i",
        why="Theirs is the mean over all pairs of tokens in the batch, so that long rows count more; ours that over "
        "tokens, each with the mean over its keys.",
        convert=longer_counts_more,
        same=False,
        padding=True,
    ),
    Pair(
        "AttentionMap",
        "tokens",
        "att_mse_loss() of scores, without a mask",
        on_attention("att_mse_loss", masked=False),
        settings=ATTENTION,
        formula="theirs = ours with every score up to -0.001 set to 0",
        why="Without a mask, theirs takes every score up to -0.001 for a masked one, though half of all scores are "
        "negative; TinyBERT's code has -100 there.",
        convert=without_negatives,
        same=False,
        size={"tokens": None},
    ),
    Pair(
        "AttentionMap",
        "tokens",
        "att_mse_loss() of probabilities",
        on_attention("att_mse_loss", masked=False, probabilities=True),
        settings=ATTENTION | {"compare_as": "probabilities"},
        size={"tokens": None},
    ),
    Pair(
        "AttentionRelation",
        "attention",
        "att_ce_loss(mask=mask), without padding",
        on_attention("att_ce_loss", masked=True),
        settings={"pairs": {"a": "b"}, "relation_heads": HEADS},
        formula="theirs = ours + mean entropy of the teacher's attention",
        why="The cross-entropy in place of the divergence: a constant more, which it need not compute, and the same "
        "gradient. With padding, theirs "
        "leaves padded keys out behind the softmax, in which they still have a share; ours before it.",
        convert=with_entropy,
        same=False,
    ),
    Pair(
        "FlowOfSolution",
        "a stage that shrinks",
        "fsp_loss(...), also called gram",
        gram,
        settings={"student_flows": [["a.0", "a.1"]], "teacher_flows": [["b.0", "b.1"]], "variant": "official"},
        why="Theirs reads tokens; here they are the places of maps of one size.",
        size={
            "student": {"a.0": (64, 14, 14), "a.1": (128, 14, 14)},
            "teacher": {"b.0": (64, 14, 14), "b.1": (128, 14, 14)},
            "samples": 32,
        },
    ),
    Pair(
        "NeuronSelectivity",
        "polynomial",
        "mmd_loss(...) of channels of length 1, also called nst",
        places,
        settings={"pairs": {"a": "b"}, "kernel": "polynomial"},
        formula="theirs = ours / (H · W)²",
        why="Theirs takes the mean over the Gram matrix of the places and does not divide channels by their length, as "
        "the paper does (here they are handed to it so). With a mask it divides the products by the number of tokens, "
        "without one by the width.",
        convert=lambda o: o.mean / o.student["a"][0, 0].numel() ** 2,
    ),
]
ABSENT = {
    "att_ce_mean_loss": "averages the scores of all heads before the softmax; here heads are compared one by one",
    "att_mse_sum_loss": "adds up the scores of all heads before they are compared; here heads are compared one by one",
}


def names() -> set[str]:
    """Every loss that the library has."""
    return {name for name in vars(importlib.import_module("textbrewer.losses")) if name.endswith("_loss")}
