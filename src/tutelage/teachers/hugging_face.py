"""Hugging Face models from a local folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tutelage.errors import MissingExtra, ModelError
from tutelage.paths import resolve_path
from tutelage.teachers.encoder import Pooling, SentenceEncoder
from tutelage.teachers.sentence_layout import SentenceLayout, read_json, read_layout
from tutelage.teachers.torch_teacher import TorchTeacher
from tutelage.teachers.weights import PICKLES, name_some, refuse_pickle

__all__ = ["HuggingFaceTeacher", "load_hugging_face"]

Head = Literal["auto", "classification", "embedding"]
DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["eager", "sdpa"]


class HuggingFaceTeacher(TorchTeacher):
    """A model in a local Hugging Face or sentence-transformers folder, with weights in safetensors format.

    Nothing is downloaded, unpickled, or run from the folder. With the `embedding` head the module is a
    `SentenceEncoder` around the base model, so the paths of layers begin with `model.` (`model.encoder.layer.2`).

    Args:
        path: The folder, or `package:NAME/sub/path` for one inside an installed Python package.
        head: `classification` answers logits `[B, C]`, `embedding` answers `[B, D]`. `auto` reads it from
            `architectures` in `config.json`: classification if it names a `...ForSequenceClassification`, embedding
            otherwise; `describe` says which.
        pooling: How an embedding is made of the hidden states; `auto`: as the folder says, else the mean.
        normalize: Whether embeddings have unit length; None: as the folder says, else yes.
        dtype: The precision that the teacher computes in.
        attention: The implementation of attention: torch's fused one, or plain matrix products.
    """

    def __init__(
        self,
        path: str,
        head: Head = "auto",
        *,
        pooling: Literal["auto", "mean", "cls"] = "auto",
        normalize: bool | None = None,
        dtype: DType = "float32",
        attention: Attention = "sdpa",
    ) -> None:
        self.path = path
        self.head = head
        self.pooling = pooling
        self.normalize = normalize
        self.dtype = dtype
        self.attention = attention

    def make(self) -> nn.Module:
        """Loads the model; see `load_hugging_face`."""
        return load_hugging_face(
            self.path,
            key="teacher.path",
            head=self.head,
            pooling=self.pooling,
            normalize=self.normalize,
            dtype=self.dtype,
            attention=self.attention,
        )

    @property
    def comes_from_elsewhere(self) -> bool:
        """Somebody's files."""
        return True

    @property
    def tokenizer_folder(self) -> Path | None:
        """The folder of the token model, which holds the tokenizer's files too. The model need not be loaded.

        Raises:
            ModelError: The folder does not exist.
        """
        return read_layout(resolve_path(self.path, key="teacher.path", error=ModelError)).model

    @property
    def classes(self) -> tuple[str, ...]:
        """`id2label` of the loaded model's config, unless its names are those made up for want of others."""
        config = getattr(self.module, "config", None)
        names = tuple(name for _, name in sorted(getattr(config, "id2label", {}).items()))
        return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names

    def describe(self) -> str:
        """The model's class and head, once loaded."""
        module = self.module
        if module is None:
            return f"HuggingFaceTeacher({self.path})"
        if isinstance(module, SentenceEncoder):
            unit = ", unit length" if module.normalize else ""
            return f"{type(module.model).__name__} (embedding, {module.pooling} pooling{unit})"
        return f"{type(module).__name__} (classification)"


def load_hugging_face(
    path: str,
    *,
    key: str,
    head: Head = "auto",
    pooling: Literal["auto", "mean", "cls"] = "auto",
    normalize: bool | None = None,
    dtype: DType = "float32",
    attention: Attention = "sdpa",
) -> nn.Module:
    """The model in a folder, in eval mode: a `SentenceEncoder`, or a Hugging Face classifier.

    Args:
        path: The folder.
        key: How to name it in messages.
        head: See `HuggingFaceTeacher`, as for all that follow.
        pooling: How an embedding is made.
        normalize: Whether it has unit length.
        dtype: Precision of the weights.
        attention: Implementation of attention.

    Raises:
        ModelError: The folder is missing, has no safetensors weights, lacks weights that the model needs, or asks for
            what a `SentenceEncoder` can't do.
        MissingExtra: transformers is not installed.
    """
    layout = read_layout(resolve_path(path, key=key, error=ModelError))
    config = read_config(layout.model, key)
    architectures = config.get("architectures") or []
    if head == "auto":
        classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
        head = "classification" if classifies else "embedding"
    if head == "classification":
        classifier: nn.Module = load_pretrained(
            "AutoModelForSequenceClassification", layout.model, key, dtype, attention
        )
        return classifier
    mode = pooling_of(layout, pooling, key)
    model = load_pretrained("AutoModel", layout.model, key, dtype, attention)
    unit = normalize if normalize is not None else layout.normalize is not False
    return SentenceEncoder(model, mode, normalize=unit)


def read_config(folder: Path, key: str) -> dict[str, Any]:
    """`config.json`, after checking that the weights beside it can be loaded without unpickling."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if "config.json" not in names:
        raise ModelError(
            key,
            expected="a Hugging Face model folder, with config.json and model.safetensors",
            found=f"`{folder}` with {', '.join(names[:8]) or 'no files'}",
            mend="give the folder that `save_pretrained` wrote",
        )
    if "adapter_config.json" in names:
        raise ModelError(
            key,
            expected="a whole model",
            found=f"an adapter (PEFT) in `{folder}`",
            mend="merge it into its base model (`merge_and_unload`) and save that",
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickle = next((name for name in names if Path(name).suffix in PICKLES), None)
        if pickle is not None:
            refuse_pickle(folder / pickle, key, target="model.safetensors")
        raise ModelError(
            key,
            expected="weights in safetensors format",
            found=f"`{folder}` with {', '.join(names[:8])}",
            mend="copy model.safetensors into the folder",
        )
    config = read_json(folder / "config.json")
    return config if isinstance(config, dict) else {}


def pooling_of(layout: SentenceLayout, stated: Literal["auto", "mean", "cls"], key: str) -> Pooling:
    """The pooling that was stated, else the folder's, else the mean."""
    if layout.others:
        raise ModelError(
            key,
            expected="a sentence encoder made of Transformer, Pooling and Normalize",
            found=f"also {', '.join(layout.others)} in modules.json",
            harm="without them the embeddings would be others than the model's",
            mend="wrap the model in a torch module of your own and use ModuleTeacher",
        )
    if stated != "auto":
        return stated
    modes = layout.pooling or ("mean",)
    if modes == ("mean",):
        return "mean"
    if modes == ("cls",):
        return "cls"
    raise ModelError(
        key,
        expected="pooling by `mean` or `cls`",
        found=f"`{' + '.join(modes)}` in the folder's pooling config",
        mend="state `pooling`, if the model may be used with another one",
    )


def load_pretrained(auto_class: str, folder: Path, key: str, dtype: DType, attention: Attention) -> Any:
    """`from_pretrained` of one of the Auto classes, from this folder alone, with each weight accounted for."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "loading a Hugging Face model") from error
    try:
        with quiet(transformers):
            model, report = getattr(transformers, auto_class).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises whatever its parts raise: OSError, ValueError, KeyError, ...
        raise ModelError(
            key,
            expected=f"a model that transformers {transformers.__version__} loads as {auto_class}",
            found=f"{type(error).__name__}: {error}",
            mend="check the folder with `AutoConfig.from_pretrained`; models that bring their own code are not loaded",
        ) from error
    missing = {str(name) for name in report["missing_keys"]} | {str(item[0]) for item in report["mismatched_keys"]}
    if auto_class == "AutoModel":
        missing = without_unused_pooler(model, missing)
    # A head of another task is left over under AutoModel; a classifier must use all that the file holds.
    left_over = [str(name) for name in report["unexpected_keys"]] if auto_class != "AutoModel" else []
    if missing or left_over:
        found = [f"missing or of another shape: {name_some(missing)}"] * bool(missing)
        found += [f"left over: {name_some(left_over)}"] * bool(left_over)
        raise ModelError(
            key,
            expected=f"all the weights of {type(model).__name__}, and no others",
            found="; ".join(found),
            harm="missing weights would be random",
            mend="state the right `head`, or give a model that was trained for this task",
        )
    return model.eval()


def without_unused_pooler(model: Any, missing: set[str]) -> set[str]:
    """Takes an untrained pooler out of a base model: embeddings don't use it, and its weights would be random."""
    pooler = {f"pooler.{name}" for name in model.pooler.state_dict()} if getattr(model, "pooler", None) else set()
    if pooler and pooler <= missing:
        model.pooler = None
        return missing - pooler
    return missing


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the progress bar and the report of transformers, whose content is checked here instead."""
    log = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()
