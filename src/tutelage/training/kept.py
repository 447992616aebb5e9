"""What a training left in its folder, checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from tutelage.errors import CheckpointError
from tutelage.sealed import Damaged, read_sealed
from tutelage.training.checkpoint import checkpoint_steps, load_checkpoint, load_weights

__all__ = ["BEST", "DONE", "best_weights", "read_done", "sound_step"]

BEST, DONE = "best.safetensors", "done.json"


def sound_step(folder: Path, tell: Callable[[str], object] = lambda text: None) -> int | None:
    """The step of the newest checkpoint from which a training can go on; None where there is no checkpoint.

    The checkpoint and the best weights that its state speaks of are read, and their digests compared.

    Args:
        folder: Of the training.
        tell: Is told of each damaged checkpoint that an earlier one stands in for.

    Raises:
        CheckpointError: There are checkpoints, but all are damaged.
    """
    damage: list[str] = []
    for step in checkpoint_steps(folder):
        try:
            _check(folder, step)
        except CheckpointError as error:
            damage.append(str(error))
            continue
        for text in damage:
            tell(f"{text}; going on from the checkpoint before it, of step {step:,}")
        return step
    if damage:
        raise CheckpointError(f"{'; '.join(damage)}; {_anew(folder)}")
    return None


def _check(folder: Path, step: int) -> None:
    loaded = load_checkpoint(folder, step)
    assert loaded is not None
    progress = loaded[1]["progress"]
    if not progress["best_step"] or not progress.get("best_sha256"):
        return
    best = load_weights(folder / BEST)
    # Weights of a later evaluation are those of a training that was killed after it: it is done once more.
    if best.digest != progress["best_sha256"] and best.step <= step:
        raise CheckpointError(f"{folder / BEST} is not what the checkpoint of step {step:,} speaks of")


def read_done(folder: Path) -> dict[str, Any]:
    """What is noted in the folder of a complete training: `step`, `best_step`, `development`, `best_sha256`.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return read_sealed(folder / DONE)
    except (OSError, Damaged) as error:
        raise CheckpointError(f"{folder / DONE} is damaged: {error}; {_anew(folder)}") from error


def best_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that a complete training ended with.

    Raises:
        CheckpointError: They are damaged, or others.
    """
    expected = read_done(folder).get("best_sha256")
    try:
        best = load_weights(folder / BEST)
        if expected not in (None, best.digest):
            raise CheckpointError(f"{folder / BEST} is not what this training ended with")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_anew(folder)}") from error
    return best.tensors


def _anew(folder: Path) -> str:
    return f"remove the folder {folder}, and the same command does that training again"
