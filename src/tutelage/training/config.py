"""How long and how a student is trained: the `training` section of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from tutelage.errors import RecipeError

__all__ = ["Training"]


@dataclass(kw_only=True)
class Training:
    """How long and how a student is trained.

    Args:
        steps: Optimiser steps. Give this or `epochs`.
        epochs: Passes over the training rows; may be a fraction.
        batch_size: Rows in an optimiser step, over all pieces and all processes.
        micro_batches: Pieces a step's rows are computed in (gradient accumulation); the gradient is the same.
        optimizer: `adamw`, or `sgd` with Nesterov momentum.
        learning_rate: Highest learning rate.
        momentum: Of `sgd`; the first beta of `adamw`.
        beta2: The second beta of `adamw`: 0.98 forgets the large gradients of the first steps sooner than 0.999.
        weight_decay: Decoupled for `adamw`, L2 for `sgd`; on matrices and kernels alone, not on biases and norms.
        schedule: What the rate does after the warm-up: stays, or falls to zero along a line or a cosine.
        warmup: Share of the steps in which the rate rises from zero along a line.
        clip_norm: The gradient is scaled down to this norm where it is larger; null for no clipping.
        precision: Mixed precision of student and teacher: weights and reductions stay float32.
        compile: Run the student through `torch.compile`.
        freeze: Dotted paths of the student's layers that are not trained.
        evaluate_every: Steps between evaluations on the development split; by default ten times a run.
        patience: Stop after so many evaluations without improvement; null for never.
        checkpoint_seconds: Least time between checkpoints. A killed run loses at most this much.
        log_every: Steps between records of the loss.
    """

    incidental: ClassVar[tuple[str, ...]] = ("checkpoint_seconds", "log_every")

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    micro_batches: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = 0.05
    clip_norm: float | None = 1.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    freeze: list[str] | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    checkpoint_seconds: float = 30.0
    log_every: int = 10

    def check(self, key: str) -> None:
        """Refuses values that can't be meant.

        Raises:
            RecipeError: Naming the field below `key`.
        """
        if (self.steps is None) == (self.epochs is None):
            found = "neither" if self.steps is None else f"steps: {self.steps} and epochs: {self.epochs}"
            raise RecipeError(
                key, expected="either `steps` or `epochs`", found=found, mend=f"state one, as {key}.steps"
            )
        positive = ("steps", "epochs", "batch_size", "micro_batches", "learning_rate", "clip_norm", "evaluate_every")
        for name in (*positive, "patience", "log_every"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RecipeError(f"{key}.{name}", expected="a positive number", found=str(value), mend="raise it")
        for name, below in (("warmup", 1.0), ("momentum", 1.0), ("beta2", 1.0), ("weight_decay", math.inf)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < below:
                raise RecipeError(f"{key}.{name}", expected=f"at least 0 and below {below}", found=str(value))
        if self.checkpoint_seconds < 0:
            raise RecipeError(f"{key}.checkpoint_seconds", expected="0 or more", found=str(self.checkpoint_seconds))
        if self.micro_batches > self.batch_size:
            raise RecipeError(
                f"{key}.micro_batches",
                expected=f"at most batch_size ({self.batch_size})",
                found=str(self.micro_batches),
                harm="some pieces would be empty",
                mend="lower micro_batches or raise batch_size",
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps in all, at least 1."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * steps_per_epoch))

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at `step` (from 0): linear warm-up, then the schedule. A function of the step alone."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        progress = (step - warm) / max(1, steps - warm)
        factor = {
            "constant": 1.0,
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        }[self.schedule]
        return self.learning_rate * factor
