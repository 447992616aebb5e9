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
from tutelage.teachers.gives import Gives
from tutelage.teachers.heads import base_class, choose_head, dropped_head
from tutelage.teachers.padding import tell_padding
from tutelage.teachers.sentence_head import encoder_of
from tutelage.teachers.sentence_layout import read_json, read_layout
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
        head: `classification` answers logits `[B, C]`, `embedding` answers `[B, D]`. `auto` reads it from the folder:
            embedding where `modules.json` has a pooling; else by `architectures` in `config.json`: classification for
            `...ForSequenceClassification`, embedding for a model without a head (`...Model`) or with the head of its
            pretraining (`...ForMaskedLM`, `...ForPreTraining`); another head is refused by name. `embedding` takes the
            encoder of any of them and leaves the head out.
        pooling: How an embedding is made of the hidden states (see `SentenceEncoder`); `auto`: as the folder says,
            else the mean.
        normalize: Whether embeddings have unit length; None: as the folder says, else yes.
        dtype: The precision that the teacher computes in.
        attention: The implementation of attention: torch's fused one, or plain matrix products.
        gives: What the output is: `logits`, as a classifier of transformers answers; `probabilities` or `sigmoid` where
            its head itself ends in one.
    """

    def __init__(
        self,
        path: str,
        head: Head = "auto",
        *,
        pooling: Literal["auto"] | Pooling = "auto",
        normalize: bool | None = None,
        dtype: DType = "float32",
        attention: Attention = "sdpa",
        gives: Gives = "logits",
    ) -> None:
        self.path = path
        self.head = head
        self.pooling = pooling
        self.normalize = normalize
        self.dtype = dtype
        self.attention = attention
        self.gives = gives

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

    @property
    def notes(self) -> list[str]:
        """The head that the folder's model has and the embedding does without."""
        model = self.module.model if isinstance(self.module, SentenceEncoder) else None
        head = dropped_head(getattr(getattr(model, "config", None), "architectures", None))
        left = f"`{self.path}` holds a {head}; its encoder is used and its head left out"
        return [left] if model is not None and head else []


def load_hugging_face(
    path: str,
    *,
    key: str,
    head: Head = "auto",
    pooling: Literal["auto"] | Pooling = "auto",
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
    if choose_head(config, layout, head, key) == "classification":
        classifier: nn.Module = load_pretrained(
            "AutoModelForSequenceClassification", layout.model, key, dtype, attention
        )
        tell_padding(classifier, layout.model)
        return classifier
    base = base_class(transformers_package(), config, layout, key)
    named = head == "embedding" or layout.stated or bool(dropped_head(config.get("architectures")))
    model = load_pretrained(base, layout.model, key, dtype, attention, without_head=named)
    return encoder_of(model, layout, pooling, normalize, key)


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
    config = config if isinstance(config, dict) else {}
    deep = next((n for n in LAYERS if isinstance(config.get(n), int | float) and config[n] > MOST_LAYERS), None)
    if deep is not None:
        raise ModelError(
            f"{key}: {deep} in `{folder}/config.json`",
            expected=f"at most {MOST_LAYERS:,} layers",
            found=f"{config[deep]:,g}",
            harm="building them would fill the memory before any weight is looked at",
            mend="take the config.json that belongs to the weights",
        )
    return config


MOST_LAYERS = 2_000
"""Layers of a model; the deepest published ones have some hundreds."""
LAYERS = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers", "encoder_layers", "decoder_layers",
)  # fmt: skip
"""Names that models of transformers have for how many layers they have."""


def transformers_package() -> Any:
    """The package `transformers`. Raises a `MissingExtra` where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "loading a Hugging Face model") from error
    return transformers


def load_pretrained(
    name: str, folder: Path, key: str, dtype: DType, attention: Attention, *, without_head: bool = False
) -> Any:
    """`from_pretrained` of a class of transformers, from this folder alone, with each weight accounted for.

    Args:
        name: The class.
        folder: The model's folder.
        key: How to name it in messages.
        dtype: Precision of the weights.
        attention: Implementation of attention.
        without_head: Whether the file may hold weights of a head that the class does not have.
    """
    transformers = transformers_package()
    try:
        with quiet(transformers):
            model, report = getattr(transformers, name).from_pretrained(
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
            expected=f"a model that transformers {transformers.__version__} loads as {name}",
            found=f"{type(error).__name__}: {error}",
            mend="check the folder with `AutoConfig.from_pretrained`; models that bring their own code are not loaded",
        ) from error
    missing = {str(name) for name in report["missing_keys"]} | {str(item[0]) for item in report["mismatched_keys"]}
    if name == "AutoModel":
        missing = without_unused_pooler(model, missing)
    left_over = [str(weight) for weight in report["unexpected_keys"]]
    if without_head:
        left_over = [weight for weight in left_over if is_of_base(model, weight)]
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


def is_of_base(model: Any, weight: str) -> bool:
    """Whether a weight of a file that a base model does not have belongs to a part that it has, such as a layer."""
    part = weight.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
    return part in {name for name, _ in model.named_children()}


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
