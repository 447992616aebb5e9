"""Answers of a black box of the user's own, checked and made into what a student learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import ModelError
from tutelage.forms import TopK
from tutelage.signals import Signals
from tutelage.teachers.gives import FLOOR, log_odds, probabilities_to_logits
from tutelage.teachers.settings import require_choice

__all__ = ["AnswerForm", "Answers", "require_answers"]

Answers = Literal["logits", "probabilities", "log_probabilities", "sigmoid", "values", "labels"]

_SHAPES = {
    "labels": ("[B]", 1, 1),
    "values": ("[B] or [B, K]", 1, 2),
    "logits": ("[B, C]", 2, 8),
    "probabilities": ("[B, C]", 2, 2),
    "log_probabilities": ("[B, C]", 2, 2),
    "sigmoid": ("[B] or [B, C]", 1, 8),
}
"""What an answer looks like, and the fewest and most axes that it may have."""
_TOLERANCE = 1e-3
"""How far probabilities that are told exactly may be from a sum of 1."""


def require_answers(gives: str, decimals: int | None, truncated: bool) -> None:
    """Refuses settings of a teacher that contradict each other.

    Raises:
        ModelError: Naming the key.
    """
    require_choice("teacher.gives", gives, get_args(Answers))
    if decimals is not None and decimals < 0:
        raise ModelError("teacher.decimals", expected="at least 0", found=str(decimals))
    if (decimals is not None and gives != "probabilities") or (truncated and "probabilities" not in gives):
        raise ModelError(
            "teacher.decimals, teacher.truncated",
            expected="gives: probabilities",
            found=f"gives: {gives}",
            mend="remove them: they say how probabilities are told",
        )


@dataclass(frozen=True, kw_only=True)
class AnswerForm:
    """What the answers of a teacher are.

    Attributes:
        gives: Logits `[B, C]`, probabilities or their natural logarithms `[B, C]` (probabilities `[B]` are of the
            second of two classes), independent probabilities (`sigmoid`) of any shape, values `[B]` or `[B, K]`, or
            labels `[B]`.
        names: The classes, where they are known.
        decimals: To how many decimals probabilities are rounded, if they are.
        truncated: Whether only the likeliest classes have their probability, and the others 0.
        who: The answers, for errors.
        mend: Where to look when they are not what `gives` says, for errors.
    """

    gives: Answers
    names: Sequence[str] = ()
    decimals: int | None = None
    truncated: bool = False
    who: str
    mend: str

    def read(self, said: Any, rows: int) -> Tensor:
        """Answers about so many rows, as float64 `[B, ...]`, or int64 `[B]` for labels.

        Raises:
            ModelError: They are not what `gives` says.
        """
        answer = self._labels(said) if self.gives == "labels" else self._numbers(said)
        if self.gives == "probabilities" and answer.ndim in (1, 2) and answer.numel() == rows:
            answer = torch.stack([1 - answer.reshape(-1), answer.reshape(-1)], dim=1)  # of the second of two classes
        words, fewest, most = _SHAPES[self.gives]
        if not fewest <= answer.ndim <= most or len(answer) != rows:
            raise self._wrong(f"{words} with B = {rows}", f"shape {list(answer.shape)}")
        per_class = self.gives in ("logits", "probabilities", "log_probabilities")
        if per_class and self.names and answer.shape[1] != len(self.names):
            raise self._wrong(f"a column for each of the {len(self.names)} classes", f"{answer.shape[1]} columns")
        if self.gives in ("probabilities", "log_probabilities"):
            self._check_sums(answer.exp() if self.gives == "log_probabilities" else answer)
        if self.gives == "sigmoid" and not 0 <= float(answer.min()) <= float(answer.max()) <= 1:
            found = f"numbers from {float(answer.min()):g} to {float(answer.max()):g}"
            raise self._wrong("probabilities, from 0 to 1", found, "gives: logits")
        return answer

    def signals(self, answers: Sequence[Tensor], device: torch.device, answered: Tensor | None = None) -> Signals:
        """One or several answers to the same rows, each as `read` gives it, as one: shares or the mean.

        Args:
            answers: At least one.
            device: Where the signals are put.
            answered: `[B]` bool: False where a row has no answer, whatever stands there.
        """
        if self.gives == "labels":
            one_hot = [torch.nn.functional.one_hot(answer, self.count()).float() for answer in answers]
            return _top(torch.stack(one_hot).mean(0), min(len(answers), self.count()), answered, device)
        if self.decimals is not None or self.truncated:
            told = [answer.exp() if self.gives == "log_probabilities" else answer for answer in answers]
            mean = torch.stack(told).mean(0)
            return _top(_completed(mean), mean.shape[-1], answered, device)
        mean = self._mean(answers).float().to(device)
        if answered is None:
            return Signals(output=mean)
        answered = answered.to(device)
        return Signals(output=mean.where(answered.view(-1, *[1] * (mean.dim() - 1)), 0.0), answered=answered)

    def _mean(self, answers: Sequence[Tensor]) -> Tensor:
        every = torch.stack(list(answers))
        if self.gives == "probabilities":
            return probabilities_to_logits(every.mean(0))
        if self.gives == "sigmoid":
            return log_odds(every.mean(0))
        if self.gives == "log_probabilities" or (self.gives == "logits" and len(answers) > 1):
            logs = every.log_softmax(-1).logsumexp(0) - float(np.log(len(answers)))
            told = logs[logs > -torch.inf]
            return logs.clamp(min=min(float(np.log(FLOOR)), float(told.min())))  # losses can't take minus infinity
        return every.mean(0)

    def count(self) -> int:
        """How many classes there are.

        Raises:
            ModelError: That is not known.
        """
        if not self.names:
            raise ModelError(
                "teacher.classes",
                expected="the names of the classes: labels alone don't say how many there are",
                found="none, and the data has no labels that would name them",
                mend="classes: [first, second, ...]",
            )
        return len(self.names)

    def _numbers(self, said: Any) -> Tensor:
        try:
            answer = torch.as_tensor(np.asarray(said.detach().cpu() if isinstance(said, Tensor) else said, np.float64))
        except (TypeError, ValueError) as error:
            raise self._wrong("numbers, one entry a row", f"{type(said).__name__}: {error}") from error
        usable = torch.isfinite(answer)
        if self.gives == "log_probabilities":  # the logarithm of 0
            usable |= answer == -torch.inf
        if not bool(usable.all()):
            at = int((~usable).reshape(len(answer), -1).any(1).nonzero()[0])
            raise self._wrong("finite numbers", f"NaN or infinity in row {at} of the {len(answer)} it was asked about")
        return answer

    def _labels(self, said: Any) -> Tensor:
        """Class numbers of names or numbers."""
        cells = said.tolist() if isinstance(said, Tensor | np.ndarray) else list(said)
        names = {name: number for number, name in enumerate(self.names)}
        count = self.count()
        numbers = [names.get(cell, cell) if isinstance(cell, str) else cell for cell in cells]
        wrong = [c for c, n in zip(cells, numbers, strict=True) if type(n) is not int or not 0 <= n < count]
        if wrong:
            raise self._wrong(f"names of classes or numbers from 0 to {count - 1}", f"{wrong[0]!r}"[:80])
        return torch.tensor(numbers, dtype=torch.int64)

    def _check_sums(self, p: Tensor) -> None:
        """Probabilities are at least 0 and come to 1, or to as much as they may when they are rounded or truncated."""
        if float(p.min()) < 0:
            raise self._wrong("probabilities", f"{float(p.min()):g}")
        sums = p.sum(-1)
        slack = _TOLERANCE if self.decimals is None else 0.5 * 10**-self.decimals * p.shape[-1] + 1e-9
        low = 0.0 if self.truncated else 1 - slack
        at = int((sums - 1).abs().argmax())
        if float(sums.max()) > 1 + slack or float(sums.min()) < low or float(sums.min()) <= 0:
            raise self._wrong(
                "probabilities that come to 1",
                f"{float(sums[at]):g} in row {at}",
                "gives: sigmoid, where each output is a probability by itself; else decimals, truncated"
                if float(p.max()) <= 1 and self.gives == "probabilities"
                else "gives: logits",
            )

    def _wrong(self, expected: str, found: str, mend: str = "") -> ModelError:
        return ModelError(
            self.who,
            expected=f"{self.gives}: {expected}",
            found=found,
            harm="the student would learn something else than the teacher says",
            mend=mend or self.mend,
        )


def _top(probabilities: Tensor, count: int, answered: Tensor | None, device: torch.device) -> Signals:
    """The `count` likeliest of `[B, C]`; the others have what is missing to 1. Unanswered rows are silent."""
    p = probabilities if answered is None else probabilities * answered[:, None]
    top, indices = p.topk(count, dim=-1)
    return Signals(top=TopK.of_probabilities(top, indices, p.shape[-1]).map(_on(device)))


def _completed(p: Tensor) -> Tensor:
    """Probabilities scaled to sum to 1 in rows where no class is 0: no other could have what is missing."""
    all_told = (p > 0).all(-1, keepdim=True)
    return torch.where(all_told, p / p.sum(-1, keepdim=True), p)


def _on(device: torch.device) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
