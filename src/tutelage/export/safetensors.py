"""The student as weights in safetensors format and the config that says what they are the weights of.

Three layouts, each read by the tools that it belongs to, all with `config.json` and `model.safetensors` at the root:

    huggingface             what `save_pretrained` writes
    sentence-transformers   the same, with modules.json, 1_Pooling and 2_Normalize
    module                  any other torch module; config.json records its class path and arguments where known
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_model
from torch import nn

from tutelage.devices.batch import change_inputs, placed
from tutelage.devices.size import size_of
from tutelage.errors import ModelError
from tutelage.export.module_spec import build_from_spec
from tutelage.export.sentence_transformers import copy_tokenizer, write_layout
from tutelage.export.sources import carried, require_modules, write_sources
from tutelage.export.staging import staged
from tutelage.signals import Inputs, call, output_of
from tutelage.teachers.encoder import SentenceEncoder
from tutelage.teachers.sentence_layout import TextForm, layout_of_tokenizer

__all__ = ["load_student", "save_student"]

Layout = Literal["huggingface", "sentence-transformers", "module"]

WEIGHTS = "model.safetensors"
MODULE_FORMAT = "tutelage-module"
SAME_OUTPUTS = 1e-5
"""How far outputs of the same weights may be apart, as a share of the largest one: what rounding does."""


def save_student(
    module: nn.Module,
    folder: Path,
    *,
    tokenizer: Path | None = None,
    form: TextForm | None = None,
    spec: Mapping[str, Any] | None = None,
    example: Inputs | None = None,
) -> dict[str, Any]:
    """Writes a model's weights and config. Other files in the folder stay; when it fails nothing has changed.

    Args:
        module: A Hugging Face model, a `SentenceEncoder` of one, or any torch module. Tied weights are stored once.
        folder: The bundle.
        tokenizer: A folder whose tokenizer files are copied.
        form: How the texts of a `SentenceEncoder` are prepared; None: as the tokenizer's folder says.
        spec: `{"class_path":, "init_args":}` of any other module, so that `load_student` can build it again.
        example: A batch on which the stored model is compared with this one.

    Returns:
        For `export.json`: `file`, `layout`, `parameters`, `embedding_parameters`, `size_bytes`, `loads` (whether
        `load_student` rebuilds it, with the same outputs; if not, `why_not`), and `max_abs_difference`: of the outputs
        on the example where it can be built, of the weights otherwise.

    Raises:
        ModelError: The weights can't be stored, or there are no tokenizer files.
    """
    layout = _layout_of(module)
    with staged(folder) as partial:
        if layout == "module":
            _write_module(module, partial, spec)
        else:
            _write_hugging_face(module.model if isinstance(module, SentenceEncoder) else module, partial)
        if isinstance(module, SentenceEncoder) and layout == "sentence-transformers":
            if form is None:
                form = TextForm() if tokenizer is None else layout_of_tokenizer(tokenizer).texts
            write_layout(partial, module, form)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial)
    return {"file": WEIGHTS, "layout": layout, **asdict(size_of(module)), **_check(module, folder, example)}


def load_student(folder: str | Path, *, source: Literal["installed", "bundle"] = "installed") -> nn.Module:
    """Builds the model of a bundle again, on the CPU, in eval mode. Nothing is unpickled.

    In the `module` layout the classes (or annotated functions) that config.json names are imported as Python would
    import them, and no code of the folder runs. A bundle of one's own module carries a copy of the module's source:
    `source="bundle"` imports that one, so that the bundle loads where the original is not. It runs the code in the
    bundle's folder `source`: say so only of a bundle of your own or of somebody whom you trust. That the files are
    those that were stored with the student is checked; who stored them is not.

    Args:
        folder: The bundle.
        source: Whose copy of the student's own modules is run.

    Raises:
        ModelError: The folder holds no model, or one whose class was not recorded or can't be imported, or a source
            file is not the one that was stored.
        MissingExtra: transformers is needed and not installed.
    """
    folder = Path(folder)
    config = _read_config(folder)
    if config.get("format") != MODULE_FORMAT:
        return _load_hugging_face(folder, config)
    if source == "installed":
        require_modules(config, str(folder / "config.json"))
        return _load_module(folder, config)
    with carried(folder, config):
        return _load_module(folder, config)


def _layout_of(module: nn.Module) -> Layout:
    if isinstance(module, SentenceEncoder) and _is_hugging_face(module.model):
        return "sentence-transformers"
    return "huggingface" if _is_hugging_face(module) else "module"


def _is_hugging_face(module: nn.Module) -> bool:
    transformers = sys.modules.get("transformers")  # a model of it can't exist where it was never imported
    return transformers is not None and isinstance(module, transformers.PreTrainedModel)


def _write_hugging_face(model: Any, folder: Path) -> None:
    from tutelage.teachers.hugging_face import quiet

    with quiet(sys.modules["transformers"]):
        model.save_pretrained(folder, safe_serialization=True, max_shard_size="1TB")


def _write_module(module: nn.Module, folder: Path, spec: Mapping[str, Any] | None) -> None:
    config: dict[str, Any] = {
        "format": MODULE_FORMAT,
        "class": f"{type(module).__module__}.{type(module).__qualname__}",
    }
    if spec is not None:
        config |= {"class_path": str(spec["class_path"]), "init_args": dict(spec.get("init_args") or {})}
        config |= write_sources(spec, folder)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    config["dtype"] = str(dtype).removeprefix("torch.")
    try:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except TypeError as error:
        raise ModelError(
            "arguments of the student's class", expected="plain values, which JSON can hold", found=str(error)
        ) from error
    try:
        save_model(module, str(folder / WEIGHTS), metadata={"format": "pt"})
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"weights of {type(module).__name__}",
            expected="tensors that are whole, or shared as a whole",
            found=str(error),
            mend="make views of a larger tensor parameters of their own (`.clone()`)",
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(
            str(folder),
            expected=f"a bundle: a folder with config.json and {WEIGHTS}",
            found=", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) if folder.is_dir() else "no folder",
            mend="give the folder that `tutelage distill --out` wrote",
        )
    config = json.loads(path.read_text(encoding="utf-8"))
    return dict(config)


def _load_module(folder: Path, config: dict[str, Any]) -> nn.Module:
    from tutelage.teachers.weights import load_weights

    if "class_path" not in config:
        raise ModelError(
            str(folder / "config.json"),
            expected="the class path of the student's module",
            found=f"none: only that it was a `{config.get('class')}`",
            mend="use model.onnx; or build the module yourself and load the weights: "
            f'`safetensors.torch.load_model(module, "{WEIGHTS}")`',
        )
    spec: dict[str, Any] = {name: config[name] for name in ("class_path", "init_args") if name in config}
    module = build_from_spec(spec, key=str(folder / "config.json"), requires=config.get("requires") or ())
    module.to(getattr(torch, str(config.get("dtype", "float32"))))
    load_weights(module, str(folder / WEIGHTS), str(folder / WEIGHTS))
    return module.eval()


def _load_hugging_face(folder: Path, config: dict[str, Any]) -> nn.Module:
    from tutelage.teachers.hugging_face import load_hugging_face, load_pretrained, transformers_package

    dtype: Any = config.get("dtype") or config.get("torch_dtype") or "float32"
    if (folder / "modules.json").is_file():
        return load_hugging_face(str(folder), key=str(folder), head="embedding", dtype=dtype)
    name = next(iter(config.get("architectures") or []), "")
    transformers = transformers_package()
    known = getattr(transformers, name, None) if name else None
    if not (isinstance(known, type) and issubclass(known, transformers.PreTrainedModel)):
        raise ModelError(
            str(folder / "config.json"),
            expected="`architectures` with a class of transformers",
            found=repr(name),
            mend="install the version of transformers that the student was made with, or use model.onnx",
        )
    attention: Literal["sdpa", "eager"] = "sdpa" if getattr(known, "_supports_sdpa", False) else "eager"
    model: nn.Module = load_pretrained(name, folder, str(folder), dtype, attention)
    return model


def _check(module: nn.Module, folder: Path, example: Inputs | None) -> dict[str, Any]:
    """Whether and how exactly what was written gives the model back."""
    try:
        loaded = load_student(folder)
    except ModelError as error:
        return {"loads": False, "why_not": error.found or str(error), "max_abs_difference": _of_weights(module, folder)}
    if example is None:
        return {"loads": True, "max_abs_difference": _of_weights(module, folder)}
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    loaded.to(device)
    inputs = change_inputs(example, lambda tensor: tensor.to(device))
    with placed([module], device), torch.no_grad():
        ours, theirs = output_of(call(module, inputs)), output_of(call(loaded, inputs))
    difference = _largest(ours, theirs)
    if difference > SAME_OUTPUTS * max(1.0, float(ours.abs().max())):
        why = f"what it builds gives other outputs, by up to {difference:.3g}"
        return {"loads": False, "why_not": why, "max_abs_difference": difference}
    return {"loads": True, "max_abs_difference": difference}


def _of_weights(module: nn.Module, folder: Path) -> float:
    ours = module.state_dict()
    stored = load_file(folder / WEIGHTS)
    prefix = "model." if isinstance(module, SentenceEncoder) and _layout_of(module) == "sentence-transformers" else ""
    pairs = ((ours[prefix + name], tensor) for name, tensor in stored.items() if prefix + name in ours)
    return max((_largest(a.detach().cpu(), b) for a, b in pairs if a.numel()), default=0.0)


def _largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max())
