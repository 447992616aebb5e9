"""The folder layout of sentence-transformers: where the token model is, and how its states become an embedding."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError

__all__ = ["SentenceLayout", "read_json", "read_layout"]

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, kw_only=True)
class SentenceLayout:
    """What `modules.json` says of a folder.

    Attributes:
        model: The folder of the token model.
        pooling: The pooling modes, as sentence-transformers calls them; empty where the folder does not say.
        normalize: Whether embeddings get unit length; None where the folder does not say.
        others: Modules that change the embedding and that a `SentenceEncoder` does not have, such as `Dense`.
    """

    model: Path
    pooling: tuple[str, ...] = ()
    normalize: bool | None = None
    others: tuple[str, ...] = ()


def read_layout(folder: Path) -> SentenceLayout:
    """Reads `modules.json` and the pooling's config, of sentence-transformers before and since version 6.

    Raises:
        ModelError: A file is not the JSON that it should be.
    """
    if not (folder / "modules.json").is_file():
        return SentenceLayout(model=folder)
    modules = {str(m["type"]).rsplit(".", 1)[-1]: folder / str(m["path"]) for m in read_json(folder / "modules.json")}
    return SentenceLayout(
        model=modules.get("Transformer", folder),
        pooling=pooling_modes(read_json(modules["Pooling"] / "config.json")) if "Pooling" in modules else (),
        normalize="Normalize" in modules,
        others=tuple(name for name in modules if name not in ("Transformer", "Pooling", "Normalize")),
    )


def pooling_modes(config: dict[str, Any]) -> tuple[str, ...]:
    """The modes that a pooling config switches on; several are concatenated by sentence-transformers."""
    modes = config.get("pooling_mode")
    if modes is None:
        return tuple(mode for key, mode in _LEGACY_MODES.items() if config.get(key)) or ("mean",)
    return (modes,) if isinstance(modes, str) else tuple(modes)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ModelError: There is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            str(path),
            expected="a JSON file",
            found=str(error),
            mend="copy the model's folder again, with all its files",
        ) from error
