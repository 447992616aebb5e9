"""Does forward correction help a student of a black box that gives labels alone, some of them wrong?

    python benchmarks/noisy_labels.py

On scikit-learn's digits a share of 1,200 labels is replaced by another class at random, once for each seed. The same
student learns from them by cross-entropy and by forward correction with the true rate, from the same first weights on
the same batches. Prints the accuracy on the other 597 digits' true labels, and the paired difference with its 95 %
interval over seeds. Takes some three minutes of one core.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from tutelage.forms import TopK
from tutelage.losses import ForwardCorrection, Loss, SoftCrossEntropy
from tutelage.signals import Batch, Signals

SEEDS = 8
T_QUANTILE = 2.365  # Student's t, 7 degrees of freedom


def accuracy(loss: Loss, *, seed: int, rate: float, hidden: int) -> float:
    """Per cent right of a student that learnt from labels of which a share is wrong."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16).float(), torch.tensor(data.target)
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=draw)
    train, test = order[:1200], order[1200:]
    wrong = torch.rand(1200, generator=draw) < rate
    said = torch.where(wrong, (y[train] + torch.randint(1, 10, (1200,), generator=draw)) % 10, y[train])
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    for _ in range(800):
        rows = torch.randint(0, 1200, (64,), generator=draw)
        inputs = x[train[rows]]
        batch = Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows))
        teacher = Signals(top=TopK.of_labels(said[rows], 10))
        optimizer.zero_grad()
        loss(Signals(output=student(inputs)), teacher, batch).mean().backward()
        optimizer.step()
    return float((student(x[test]).argmax(1) == y[test]).float().mean()) * 100


def main() -> None:
    print("hidden units | labels wrong | cross-entropy | forward correction | difference")
    for hidden in (12, 64):
        for rate in (0.1, 0.3, 0.5):
            losses = (SoftCrossEntropy(1.0), ForwardCorrection(rate))
            found = np.array(
                [[accuracy(each, seed=s, rate=rate, hidden=hidden) for each in losses] for s in range(SEEDS)]
            )
            plain, corrected = found.mean(0)
            apart = found[:, 1] - found[:, 0]
            error = T_QUANTILE * apart.std(ddof=1) / SEEDS**0.5
            print(
                f"{hidden} | {rate:.0%} | {plain:.1f} | {corrected:.1f} | {apart.mean():+.1f} ± {error:.1f}", flush=True
            )


if __name__ == "__main__":
    main()
