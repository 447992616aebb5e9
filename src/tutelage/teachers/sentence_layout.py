"""The folder layout of sentence-transformers: how texts are prepared, and how token states become an embedding."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError

__all__ = ["POOLING_MODES", "SentenceLayout", "TextForm", "layout_of_tokenizer", "read_json", "read_layout"]

POOLING_MODES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""The modes of sentence-transformers, each with the key that switches it on in files from before version 6, in the
order in which those are concatenated."""

_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """How a sentence encoder's texts are prepared before they are tokens.

    Attributes:
        prompt: What is put before each text.
        max_length: Tokens at which texts are cut, special ones included; None leaves it to tokenizer and model.
        lower_case: Whether texts are put in lower case before the tokenizer reads them.
    """

    prompt: str = ""
    max_length: int | None = None
    lower_case: bool = False


@dataclass(frozen=True, kw_only=True)
class SentenceLayout:
    """What the files of a folder say of its sentence encoder.

    Attributes:
        model: The folder of the token model.
        pooling: The pooling modes, as sentence-transformers calls them; empty where the folder does not say.
        dense: The folders of layers between pooling and unit length.
        normalize: Whether embeddings get unit length; None where the folder does not say.
        others: What changes the embedding and a `SentenceEncoder` does not have, in words.
        prompts: Texts that are put before each text, by name.
        default: The name of the one that `encode` puts there; None for none.
        include_prompt: Whether the tokens of the prompt count in the pooling.
        texts: How `encode` prepares texts.
    """

    model: Path
    pooling: tuple[str, ...] = ()
    dense: tuple[Path, ...] = ()
    normalize: bool | None = None
    others: tuple[str, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default: str | None = None
    include_prompt: bool = True
    texts: TextForm = field(default_factory=TextForm)

    @property
    def stated(self) -> bool:
        """Whether there is a `modules.json`: the folder was saved by sentence-transformers."""
        return self.normalize is not None


def read_layout(folder: Path) -> SentenceLayout:
    """Reads `modules.json` and the configs that it leads to, of sentence-transformers before and since version 6.

    Raises:
        ModelError: A file is not the JSON that it should be.
    """
    if not (folder / "modules.json").is_file():
        return SentenceLayout(model=folder, texts=_text_form(folder, ""))
    modules = [(str(each["type"]), folder / str(each["path"])) for each in read_json(folder / "modules.json")]
    kinds = [_kind(name) for name, _ in modules]
    places = {kind: path for kind, (_, path) in zip(kinds, modules, strict=True)}
    pooling = read_json(places["Pooling"] / "config.json") if "Pooling" in places else {}
    others = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Dense", "Normalize")]
    if not others and kinds != sorted(kinds, key=["Transformer", "Pooling", "Dense", "Normalize"].index):
        others = [f"the order {' > '.join(kinds)}"]
    model = places.get("Transformer", folder)
    prompts, default = _prompts(folder)
    return SentenceLayout(
        model=model,
        pooling=pooling_modes(pooling) if "Pooling" in places else (),
        dense=tuple(path for kind, (_, path) in zip(kinds, modules, strict=True) if kind == "Dense"),
        normalize="Normalize" in kinds,
        others=(*others, *_other_task(model)),
        prompts=tuple(prompts.items()),
        default=default,
        include_prompt=bool(pooling.get("include_prompt", True)),
        texts=_text_form(model, "" if default is None else prompts[default]),
    )


def layout_of_tokenizer(folder: Path) -> SentenceLayout:
    """The layout that a folder with a tokenizer belongs to: its own, or that of the folder which it is a part of."""
    if (folder / "modules.json").is_file() or not (folder.parent / "modules.json").is_file():
        return read_layout(folder)
    around = read_layout(folder.parent)
    return around if around.model.resolve() == folder.resolve() else read_layout(folder)


def _kind(name: str) -> str:
    """The short name of a module of sentence-transformers; the whole name of anyone else's."""
    return name.rsplit(".", 1)[-1] if name.startswith("sentence_transformers.") else name


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    path = folder / "config_sentence_transformers.json"
    content = read_json(path) if path.is_file() else {}
    prompts = {str(name): str(text or "") for name, text in (content.get("prompts") or {}).items()}
    default = content.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            str(path),
            expected=f"a default_prompt_name among the prompts: {', '.join(prompts) or 'none'}",
            found=repr(default),
            mend="mend the file; sentence-transformers does not load it either",
        )
    return prompts, default


def _text_form(model: Path, prompt: str) -> TextForm:
    content = _transformer_config(model)
    longest = content.get("max_seq_length")
    return TextForm(
        prompt=prompt, max_length=int(longest) if longest else None, lower_case=bool(content.get("do_lower_case"))
    )


def _other_task(model: Path) -> list[str]:
    """What a token model gives in the place of its last hidden states, in words; nothing for an encoder."""
    content = _transformer_config(model)
    task = content.get("transformer_task", "feature-extraction")
    method = (content.get("modality_config") or {}).get("text", {})
    states = (method.get("method", "forward"), method.get("method_output_name", "last_hidden_state"))
    found = [f"a transformer for {task}"] if task != "feature-extraction" else []
    return found + ([f"{states[1]} of {states[0]}"] if states != ("forward", "last_hidden_state") else [])


def _transformer_config(model: Path) -> dict[str, Any]:
    path = next((model / name for name in _TRANSFORMER_CONFIGS if (model / name).is_file()), None)
    return {} if path is None else dict(read_json(path))


def pooling_modes(config: dict[str, Any]) -> tuple[str, ...]:
    """The modes that a pooling config switches on; several are concatenated by sentence-transformers."""
    modes = config.get("pooling_mode")
    if modes is None:
        return tuple(mode for mode, key in POOLING_MODES.items() if config.get(key)) or ("mean",)
    return (modes,) if isinstance(modes, str) else tuple(modes)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ModelError: There is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            str(path),
            expected="a JSON file",
            found=str(error),
            mend="copy the model's folder again, with all its files",
        ) from error
