"""What makes a loss of torchdistill run on the signals of ours.

Its losses read dictionaries of what modules took in and put out, and some read a network that a wrapper of the student
holds: here such a network shares the weights of ours. torchdistill is imported when a pair is built, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from others.pair import Given, Ours, Tensors
from tutelage.losses.flow_of_solution import flow_matrix

Run = Callable[[Tensors, Tensors], Tensor]
Build = Callable[[Given], Run]

LOGITS = {
    "student_module_path": "m",
    "student_module_io": "output",
    "teacher_module_path": "m",
    "teacher_module_io": "output",
}
OUTPUTS = {"student_output_path": "m", "teacher_output_path": "m"}
PAIRS_M = {"pair": {"student": {"path": "m", "io": "output"}, "teacher": {"path": "m", "io": "output"}}}


def theirs(name: str, *arguments: Any, **named: Any) -> Any:
    """An object of their module of losses."""
    return getattr(importlib.import_module("torchdistill.losses.mid_level"), name)(*arguments, **named)


def network(name: str) -> Any:
    """A class of their module of wrappers and of the networks in them."""
    return getattr(importlib.import_module("torchdistill.models.wrapper"), name)


def io(tensor: Any) -> dict[str, Any]:
    """What the module `m` put out, as they keep it."""
    return {"m": {"output": tensor}}


def on(student: str, teacher: str, name: str, **named: Any) -> Build:
    """Theirs on one signal of each model, without labels."""

    def build(given: Given) -> Run:
        loss = theirs(name, **named)
        return lambda s, t: loss(io(s[student]), io(t[teacher]))

    return build


def on_pair(name: str, **named: Any) -> Build:
    """Theirs on the student's layer `a` and the teacher's `b`."""
    return on("a", "b", name, **named)


def on_labels(name: str, **named: Any) -> Build:
    """Theirs on both outputs and the labels."""

    def build(given: Given) -> Run:
        loss = theirs(name, **named)
        return lambda s, t: loss(io(s["output"]), io(t["output"]), given.labels)

    return build


def with_labels(ours: Ours) -> Tensor:
    """What KDLoss computes with alpha = 0.5: half of ours and half of the cross-entropy with the labels."""
    return (ours.mean + F.cross_entropy(ours.student["output"], ours.batch.labels)) / 2


def wrapped(low_level: nn.Module, student: str, teacher: str | None = None) -> Build:
    """`SimpleLossWrapper` around a loss of torch: against the teacher's layer, or against the labels."""
    source = {"is_from_teacher": False, "module_path": "m", "io": "output"}
    target = {"uses_label": True} if teacher is None else source | {"is_from_teacher": True}

    def build(given: Given) -> Run:
        loss = theirs("SimpleLossWrapper", low_level, input=source, target=target)
        return lambda s, t: loss(io(s[student]), None if teacher is None else io(t[teacher]), given.labels)

    return build


def flow(given: Given) -> Run:
    """FSPLoss on one flow."""
    names = (("first", "0"), ("second", "1"))
    places = {f"{model}_{word}": {"path": at, "io": "output"} for model in ("student", "teacher") for word, at in names}
    loss = theirs("FSPLoss", fsp_pairs={"pair": places})

    def both(maps: Tensors, model: str) -> dict[str, Any]:
        return {at: {"output": maps[f"{model}.{at}"]} for _, at in names}

    return lambda s, t: loss(both(s, "a"), both(t, "b"))


def column_norms(ours: Ours) -> Tensor:
    """What FSPLoss computes, from our flow matrices."""
    s, t = (flow_matrix(x[f"{m}.0"], x[f"{m}.1"], "max") for x, m in ((ours.student, "a"), (ours.teacher, "b")))
    return (s - t).norm(dim=1).sum() / len(s)


def factors(p: int) -> Build:
    """FTLoss behind a translator and a paraphraser without batch norm, with the weights of ours."""

    def build(given: Given) -> Run:
        translator, paraphraser = given.loss.translators.of("a"), given.loss.paraphrasers.of("a")
        channels, width = paraphraser.get_buffer("weight0").shape[0], translator[4].out_channels
        their_translator = network("Translator4FactorTransfer")(translator[0].in_channels, width, uses_bn=False)
        encoder = network("Paraphraser4FactorTransfer")(width / channels, channels, uses_bn=False).encoder
        for index, place in enumerate((0, 2, 4)):
            share(their_translator[place], translator[place])
            for name in ("weight", "bias"):
                fixed = nn.Parameter(paraphraser.get_buffer(f"{name}{index}"), requires_grad=False)
                setattr(encoder[place], name, fixed)
        loss = theirs("FTLoss", p=p, paraphraser_path="m", translator_path="m")
        return lambda s, t: loss(io(their_translator(s["a"])), io(encoder(t["b"])))

    return build


def share(theirs: nn.Module, ours: nn.Module) -> None:
    """Gives a layer of theirs the parameters of one of ours."""
    for name, parameter in ours.named_parameters():
        setattr(theirs, name, parameter)


def boundaries(given: Given) -> Run:
    """AltActTransferLoss behind its connector without batch norm."""
    ours = given.loss.projectors["a"]
    sizes = {"in_channels": ours.in_channels, "out_channels": ours.out_channels, "kernel_size": 1}
    connector = network("Connector4DAB").build_connector(sizes)
    share(connector[0], ours)
    loss = theirs("AltActTransferLoss", feature_pairs=PAIRS_M, margin=1.0, reduction="mean")
    return lambda s, t: loss(io(connector(s["a"])), io(t["b"]))


def variational(given: Given) -> Run:
    """VIDLoss behind its regressor."""
    ours = given.loss.gaussians.of("a")
    inner, outer = ours.mean[0].in_channels, ours.mean[4].out_channels
    regressor = network("Regressor4VID")(inner, outer, outer, eps=1e-5, init_pred_var=5.0)
    for place in (0, 2, 4):
        share(regressor.regressor[place], ours.mean[place])
    regressor.soft_plus_param = ours.alpha
    loss = theirs("VIDLoss", feature_pairs=PAIRS_M)
    return lambda s, t: loss(io(regressor(s["a"])), io(t["b"]))


def correlations(kernel: str) -> Build:
    """CCKDLoss; the Gaussian kernel on features of length 1."""
    paths = {"student_linear_path": "m", "teacher_linear_path": "m"}

    def build(given: Given) -> Run:
        config = {"type": kernel, "gamma": 0.4, "max_p": 2}
        loss = theirs("CCKDLoss", **paths, kernel_config=config, reduction="batchmean")
        ready = F.normalize if kernel == "gaussian" else nn.Identity()
        return lambda s, t: loss(io(ready(s["a"])), io(ready(t["b"])))

    return build


def l1_rows(ours: Ours) -> Tensor:
    """What SPKDLoss computes: rows of the similarity matrices divided by their L1 norm."""
    s, t = (x.flatten(1) @ x.flatten(1).T for x in (ours.student["a"], ours.teacher["b"]))
    return (F.normalize(s, p=1.0) - F.normalize(t, p=1.0)).square().mean()


def contrast(given: Given) -> Run:
    """CRDLoss on the memory of ours, in which all rows are known, with all other entries as negatives and Z = 1."""
    ours, rows = given.loss, torch.arange(given.loss.memory)
    ours.memory_rows.copy_(rows)
    loss = theirs(
        "CRDLoss",
        "m",
        "empty",
        "m",
        input_size=ours.width,
        output_size=ours.memory,
        num_negative_samples=ours.memory - 1,
        num_samples=ours.rows,
        temperature=ours.temperature,
        momentum=ours.momentum,
        eps=0.0,
    ).to(ours.student_memory.dtype)
    loss.params[1:4] = torch.tensor([ours.temperature, 1.0, 1.0], dtype=loss.params.dtype)
    loss.memory_v1.copy_(ours.student_memory)
    loss.memory_v2.copy_(ours.teacher_memory)
    student, teacher = (network("Normalizer4CRD")(ours.projectors[model]) for model in ("student", "teacher"))
    batch = rows[: ours.rows]
    own_first = torch.stack([torch.cat([rows[i : i + 1], rows[:i], rows[i + 1 :]]) for i in batch])
    known = {"empty": {"input": {"pos_idx": batch, "contrast_idx": own_first}}}
    return lambda s, t: loss(io(student(s["a"])) | known, io(teacher(t["b"])))


def review(given: Given) -> Run:
    """HierarchicalContextLoss behind the fusions of two levels, whose batch norms give place to the biases of ours."""
    fusions = []
    for ours in (given.loss.fusions["a/1"], given.loss.fusions["a/0"]):
        sizes = (ours.reduce.in_channels, ours.reduce.out_channels, ours.expand.out_channels)
        fusion = network("AttentionBasedFusion")(*sizes, ours.attention is not None)
        fusion.conv1, fusion.conv2 = ours.reduce, ours.expand
        if ours.attention is not None:
            fusion.attention_conv[0] = ours.attention
        fusions.append(fusion)
    loss = theirs("HierarchicalContextLoss", **LOGITS)

    def run(s: Tensors, t: Tensors) -> Tensor:
        deep = fusions[0](s["a.1"])
        shallow = fusions[1](s["a.0"], deep[1], s["a.0"].shape[2])
        return loss(io(deep), io(t["b.1"])) + loss(io(shallow), io(t["b.0"]))

    return run
