"""The training loop: a generator of records.

The progress bar, the history file and the trackers read the records. All that the loop calls is given to it in a `Fit`.
Everything random is a function of (seed, step, process), and the order of the rows a function of (seed, step), so a
run that is killed and started again goes on from its checkpoint to the same weights, bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from tutelage.errors import OutOfMemory, RunError
from tutelage.losses import Loss
from tutelage.losses.counted import Counted
from tutelage.sealed import write_sealed
from tutelage.signals import Batch, Signals
from tutelage.teachers import Teacher
from tutelage.teachers.chunks import Chunks, out_of_memory
from tutelage.training import checkpoint
from tutelage.training.config import Training
from tutelage.training.kept import BEST, DONE, best_weights, sound_step
from tutelage.training.processes import decided
from tutelage.training.progress import Progress
from tutelage.training.setup import clipped_parts, frozen_layers, make_accelerator, make_optimizer, reseed, set_rate
from tutelage.training.since import Since
from tutelage.training.step import Learner, global_scales, needs_of, term_names
from tutelage.training.untaught import Untaught, first_answers

__all__ = ["EvaluationRecord", "Fit", "StepRecord", "fit"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What training did since the last such record.

    Attributes:
        step: Steps done.
        steps: Steps to do.
        loss: Mean objective over the steps since the last record.
        terms: Mean of each loss, unweighted.
        learning_rate: Of the last step.
        gradient_norm: Of the last step before clipping, or None without clipping.
        samples_per_second: Rows trained on a second since the last record, over all processes.
        rows: Rows of the batches since the last record, over all processes.
        unanswered: How many of them the teacher (or one of several) gave no answer to: they taught nothing of it.
        empty: How many of them had no token: they taught nothing.
    """

    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    gradient_norm: float | None
    samples_per_second: float
    rows: int = 0
    unanswered: int = 0
    empty: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """The student on the development split after `step` steps; `best` says whether it is the best so far."""

    step: int
    steps: int
    development: dict[str, float]
    best: bool


class BatchOrder(Protocol):
    """Which rows, in which views, make the batch of a step: random access, so that resuming needs no state."""

    def batch(self, step: int) -> tuple[Array, Array]:
        """Rows and views of the batch of a step."""


@dataclass(kw_only=True)
class Fit:
    """One training of one student.

    Args:
        student: The module to train; it holds the best weights when `fit` ends.
        losses: Prepared losses.
        teacher: Loaded; None when no loss needs it.
        make_batch: Gives the batch of some rows in some views, on CPU.
        order: Which rows a step sees.
        training: How it is trained.
        steps: Optimiser steps in all.
        seed: Of everything random.
        folder: Where checkpoints and the best weights go.
        chunk: Rows that the teacher is asked about at once; None for all of a piece.
        evaluate: Gives metrics on the development split, or None to keep the last weights.
        select: The metric whose best value is kept.
        higher_is_better: Its direction.
        ties: What decides where it is equal, in order, with directions; where all is equal the later step is kept.
    """

    student: nn.Module
    losses: Sequence[Loss]
    teacher: Teacher | None
    make_batch: Callable[[Array, Array], Batch]
    order: BatchOrder
    training: Training
    steps: int
    seed: int
    folder: Path
    chunk: int | None = None
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    select: str = ""
    higher_is_better: bool = True
    ties: Mapping[str, bool] = field(default_factory=dict)

    @property
    def best_path(self) -> Path:
        """The student's best weights on the development split."""
        return self.folder / BEST

    @property
    def done_path(self) -> Path:
        """Exists once the training is complete: `{"step", "best_step", "development"}`."""
        return self.folder / DONE


def fit(job: Fit) -> Iterator[StepRecord | EvaluationRecord]:
    """Trains a student, yielding what happens. Starts from the newest checkpoint in the job's folder, if any.

    Yields:
        A `StepRecord` every `log_every` steps and an `EvaluationRecord` at each evaluation on the development split.

    Raises:
        RunError: The loss is not finite; the checkpoint before it is kept.
        CheckpointError: All checkpoints, or the weights of a training that is complete, are damaged.
    """
    if decided(job.done_path.exists):
        job.student.load_state_dict(best_weights(job.folder))
        return
    run = _Run(job)
    try:
        yield from run.records()
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemory(
            f"memory ran out in a training step ({str(error).splitlines()[0][:200]}). Raise training.micro_batches, "
            "lower training.batch_size, or set `chunk` if it is the teacher that is large. The last checkpoint is kept."
        ) from error
    finally:
        run.close()
    job.student.load_state_dict(best_weights(job.folder))


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


class _Run:
    """A `Fit` under way: the objects that live while it lasts."""

    def __init__(self, job: Fit) -> None:
        self.job = job
        self.accelerator = make_accelerator(job.training.precision)
        self.is_first = self.accelerator.is_main_process
        reseed(job.seed, 0, 0)
        self.learner = Learner(job.student, job.losses, compiled=job.training.compile)
        self.frozen = frozen_layers(job.student, job.training)
        self.optimizer: Any = make_optimizer(self.learner, job.training)
        self.progress = Progress()
        self.wrapped = self.accelerator.prepare(self.learner)
        if self.accelerator.scaler is not None:  # the wrapper steps float16's scaler; else it only costs time
            self.optimizer = self.accelerator.prepare(self.optimizer)
        self.since = Since(self.accelerator)
        self._restore()
        self.request = needs_of(job.losses)[1]
        self.names = term_names(job.losses)
        self.chunks = Chunks(job.chunk)
        mixed = job.training.precision != "float32"  # accelerate's own context costs as much when it does nothing
        self.autocast = self.accelerator.autocast if mixed else contextlib.nullcontext

    def close(self) -> None:
        """Removes the taps."""
        self.learner.close()

    def records(self) -> Iterator[StepRecord | EvaluationRecord]:
        """Trains to the end, or to early stopping."""
        job, training = self.job, self.job.training
        every = training.evaluate_every or max(1, math.ceil(job.steps / 10))
        saved = time.monotonic()
        self.since.start_clock()
        batches = self._batches()
        self._train_mode()
        while self.progress.step < job.steps and not self._out_of_patience():
            pieces, batch_rows = next(batches)
            norm = self._step(pieces, batch_rows)
            self.progress.step += 1
            step, last = self.progress.step, self.progress.step == job.steps
            if step % training.log_every == 0 or last:
                yield self._step_record(norm)
                self.since = Since(self.accelerator)
            if job.evaluate is not None and (step % every == 0 or last):
                self._check_finite()
                self._check_weights()
                self.since.stop_clock()
                yield self._evaluate()
                self.since.start_clock()
            if self.is_first and time.monotonic() - saved >= training.checkpoint_seconds and not last:
                # No collective call may stand here: the clock of the first process is not that of the others. What is
                # not finite is kept out, and told at the next record, by all alike.
                if _finite(self.since.losses) and all(map(_finite, self.learner.parameters())):
                    self._save()
                saved = time.monotonic()
        self._finish()

    def _train_mode(self) -> None:
        """Training mode but for frozen layers: their norms keep their statistics, their dropout is off."""
        self.learner.train()
        for layer in self.frozen:
            layer.eval()

    def _batches(self) -> Iterator[tuple[list[Batch], int]]:
        """The batches from the present step on. An accelerator has the next one made while it works on this one."""
        steps = range(self.progress.step, self.job.steps)
        if self.accelerator.device.type == "cpu":  # a thread would only take turns with the training
            yield from map(self._make_pieces, steps)
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
            ahead = pool.submit(self._make_pieces, steps.start)
            for step in steps:
                pieces = ahead.result()
                if step + 1 < steps.stop:
                    ahead = pool.submit(self._make_pieces, step + 1)
                yield pieces

    def _make_pieces(self, step: int) -> tuple[list[Batch], int]:
        """This process's share of the step's batch, in pieces, and how many rows the whole batch has."""
        rows, views = self.job.order.batch(step)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = np.array_split(np.arange(len(rows)), world)[rank]
        pieces = np.array_split(mine, self.job.training.micro_batches)
        return [self.job.make_batch(rows[piece], views[piece]) for piece in pieces if len(piece)], len(rows)

    def _step(self, pieces: Sequence[Batch], rows: int) -> Tensor | None:
        """One optimiser step on the process's pieces of a batch of so many rows; the gradient's norm, if it is cut."""
        job, accelerator = self.job, self.accelerator
        step = self.progress.step
        reseed(job.seed, step + 1, accelerator.process_index)
        set_rate(self.optimizer, job.training, step, job.steps)
        self.learner.at(step / job.steps)
        moved = [piece.to(accelerator.device) for piece in pieces]
        said = first_answers(self._ask, moved, self.request)
        untaught = Untaught()
        untaught.add(pieces, said, self.request)
        parts_of = zip(pieces, said, strict=True)
        counted = [[Counted.of(loss, *part).to(accelerator.device) for loss in job.losses] for part in parts_of]
        scales = global_scales(counted)
        sums = torch.zeros(1 + len(job.losses), device=accelerator.device)
        for piece, parts in zip(moved, counted, strict=True):
            whole = contextlib.nullcontext() if parts is counted[-1] else accelerator.no_sync(self.wrapped)
            signals = said.pop(0) or self._ask(piece)
            with whole:
                total, shares = self.wrapped(piece, signals, scales, parts)
                accelerator.backward(total * accelerator.num_processes)  # DDP takes the mean over processes
                sums += torch.cat([total.detach().float()[None], shares])
        norm = None
        if job.training.clip_norm is not None:
            norm = accelerator.clip_grad_norm_(clipped_parts(self.optimizer), job.training.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.learner.after_step()
        self.since.add(sums, untaught, rows)
        return norm

    def _ask(self, piece: Batch) -> Signals:
        teacher = self.job.teacher
        if teacher is None or not self.request:
            return Signals()
        with self.autocast():
            return self.chunks.ask(lambda some: teacher.ask(some, self.request), piece)

    def _step_record(self, norm: Tensor | None) -> StepRecord:
        values, untaught = self._check_finite().mean(0).tolist(), self.since.untaught
        return StepRecord(
            step=self.progress.step,
            steps=self.job.steps,
            loss=values[0],
            terms=dict(zip(self.names, values[1:], strict=True)),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            gradient_norm=None if norm is None else float(norm),
            samples_per_second=self.since.rows / max(self.since.seconds, 1e-9),
            rows=self.since.rows,
            unanswered=untaught.unanswered,
            empty=untaught.empty,
        )

    def _check_finite(self) -> Tensor:
        """Losses since the last record, `[n, 1 + K]`; a `RunError`, on every process alike, if one is not finite."""
        every = self.since.losses
        for losses in every[~torch.isfinite(every).all(-1)][:1]:
            terms = dict(zip(self.names, losses[1:].tolist(), strict=True))
            raise RunError(self._not_finite(f"the loss ({terms})"))
        return every

    def _check_weights(self) -> None:
        """Raises a `RunError` if a parameter is not finite; buffers may be (a mask of minus infinity)."""
        if not all(map(_finite, self.learner.parameters())):
            raise RunError(self._not_finite("the weights"))

    def _not_finite(self, what: str) -> str:
        return (
            f"{what} became NaN or infinite near step {self.progress.step}. Lower training.learning_rate, set "
            "training.clip_norm, or see whether the teacher's answers are finite. The checkpoint before is kept."
        )

    def _evaluate(self) -> EvaluationRecord:
        job, progress = self.job, self.progress
        assert job.evaluate is not None
        job.student.eval()
        evaluate = job.evaluate
        metrics = decided(lambda: evaluate(job.student))
        self._train_mode()
        best = progress.evaluated(metrics, {job.select: job.higher_is_better, **job.ties})
        if best:
            self._save_best()
        return EvaluationRecord(step=progress.step, steps=job.steps, development=metrics, best=best)

    def _out_of_patience(self) -> bool:
        patience = self.job.training.patience
        return patience is not None and self.progress.without_gain >= patience

    def _save_best(self) -> None:
        if self.is_first:
            weights = self.job.student.state_dict()
            self.progress.best_sha256 = checkpoint.save_weights(self.job.best_path, weights, self.progress.step)

    def _save(self) -> None:
        """A checkpoint of student, losses, optimiser, scaler and progress."""
        optimizer, plain = checkpoint.optimizer_tensors(self.optimizer)
        tensors = {f"model.{name}": value for name, value in self.learner.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer.items()}
        scaler = self.accelerator.scaler
        state = {
            "progress": vars(self.progress),
            "since": self.since.state(),
            "optimizer": plain,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        checkpoint.save_checkpoint(self.job.folder, self.progress.step, tensors, state)

    def _restore(self) -> None:
        """Goes on from the newest sound checkpoint; the first process looks which that is."""
        step = decided(lambda: sound_step(self.job.folder))
        if step is None:
            return
        loaded = checkpoint.load_checkpoint(self.job.folder, step)
        assert loaded is not None
        tensors, state = loaded

        def below(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.learner.load_state_dict(below("model."))
        checkpoint.load_optimizer(self.optimizer, below("optimizer."), state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        if "since" in state:
            self.since.restore(state["since"])

    def _finish(self) -> None:
        """Notes that the training is complete, and drops the checkpoints it no longer needs."""
        job, progress = self.job, self.progress
        if job.evaluate is not None and not progress.best_step:
            raise RunError(f"`{job.select}` was never defined on the development split, so no weights could be chosen")
        if job.evaluate is None:
            self._check_weights()
            progress.best_step = progress.step
            self._save_best()
        if self.is_first:
            done = {"step": progress.step, "best_step": progress.best_step, "development": progress.best_development}
            write_sealed(job.done_path, {**done, "best_sha256": progress.best_sha256})
            checkpoint.remove_checkpoints(job.folder)
        self.accelerator.wait_for_everyone()
