"""What makes an embedding of a token model's states, as the files of sentence-transformers say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import nn

from tutelage.errors import ModelError
from tutelage.teachers.encoder import Dense, Pooling, SentenceEncoder
from tutelage.teachers.sentence_layout import POOLING_MODES, SentenceLayout, read_json
from tutelage.teachers.weights import load_weights, refuse_pickle

__all__ = ["dense_config", "encoder_of", "save_dense"]

_WEIGHTS = "model.safetensors"
_ACTIVATIONS = "torch.nn.modules.activation."
_EMBEDDING = "sentence_embedding"


def encoder_of(
    model: Any, layout: SentenceLayout, pooling: Literal["auto"] | Pooling, normalize: bool | None, key: str
) -> SentenceEncoder:
    """The sentence encoder around a token model.

    Args:
        model: The token model.
        layout: What its folder says.
        pooling: A stated pooling, or `auto` for the folder's, else the mean.
        normalize: Whether embeddings have unit length; None: as the folder says, else yes.
        key: How to name the folder in messages.

    Raises:
        ModelError: The folder asks for what a `SentenceEncoder` does not have.
    """
    if model.main_input_name != "input_ids":
        raise ModelError(
            key,
            expected="a model that reads the tokens of a text, for an embedding",
            found=f"{type(model).__name__}, which reads {model.main_input_name}",
            mend="wrap it in a torch module whose forward gives the embedding (ModuleTeacher)",
        )
    modes = (pooling,) if pooling != "auto" else layout.pooling or ("mean",)
    strange = [f"pooling by {mode}" for mode in modes if mode not in POOLING_MODES]
    if layout.others or strange:
        raise ModelError(
            key,
            expected="a sentence encoder of the modules Transformer, Pooling, Dense, Normalize, in that order",
            found=f"{', '.join([*layout.others, *strange])} in the folder's files",
            harm="without it the embeddings would be others than the model's",
            mend="wrap the model in a torch module of your own and use ModuleTeacher",
        )
    unit = normalize if normalize is not None else layout.normalize is not False
    dtype = next(model.parameters()).dtype
    dense = [_load_dense(folder, key).to(dtype).eval() for folder in layout.dense]
    encoder = SentenceEncoder(model, modes, normalize=unit, dense=dense)  # type: ignore[arg-type]
    return encoder.eval()


def _load_dense(folder: Path, key: str) -> Dense:
    config = read_json(folder / "config.json")
    activation = str(config.get("activation_function") or _ACTIVATIONS + "Tanh")
    made = _activation(activation)
    wrong = [f"activation_function: {activation}"] if made is None else []
    for field, usual in (("module_input_name", _EMBEDDING), ("module_output_name", _EMBEDDING), ("use_residual", None)):
        wrong += [f"{field}: {config[field]}"] if config.get(field) and config[field] != usual else []
    if wrong:
        raise ModelError(
            f"{key}: {folder.name}",
            expected="a Dense layer on the embedding, with an activation of torch that takes no arguments",
            found=", ".join(wrong),
            harm="without it the embeddings would be others than the model's",
            mend="wrap the model in a torch module of your own and use ModuleTeacher",
        )
    bias = bool(config.get("bias", True))
    dense = Dense(int(config["in_features"]), int(config["out_features"]), bias=bias, activation=made)
    if not (folder / _WEIGHTS).is_file():
        refuse_pickle(folder / "pytorch_model.bin", f"{key}: {folder.name}", target=_WEIGHTS)
    load_weights(dense, str(folder / _WEIGHTS), f"{key}: {folder.name}")
    return dense


def _activation(name: str) -> nn.Module | None:
    """The activation of that class path; None for one that is not torch's own, or needs arguments."""
    made = getattr(nn, name.rpartition(".")[2], None)
    if name not in (f"{_ACTIVATIONS}{name.rpartition('.')[2]}", "torch.nn.modules.linear.Identity") or made is None:
        return None
    try:
        activation: nn.Module = made()
    except TypeError:
        return None
    return activation


def dense_config(dense: Dense) -> dict[str, Any]:
    """The config of a layer as sentence-transformers reads it."""
    return {
        "in_features": dense.linear.in_features,
        "out_features": dense.linear.out_features,
        "bias": dense.linear.bias is not None,
        "activation_function": f"{type(dense.activation).__module__}.{type(dense.activation).__qualname__}",
    }


def save_dense(dense: Dense, folder: Path) -> None:
    """Writes the weights of a layer as sentence-transformers reads them."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in dense.state_dict().items()}
    save_file(weights, folder / _WEIGHTS, {"format": "pt"})
