"""TensorBoard as a reader of the loop's records."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from tutelage.training.loop import EvaluationRecord, StepRecord

__all__ = ["tracked"]

Record = StepRecord | EvaluationRecord


def tracked(records: Iterator[Record], folder: Path) -> Iterator[Record]:
    """Passes records on and logs them for TensorBoard below `folder`, where the extra `tracking` is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        yield from records
        return
    from torch.utils.tensorboard.writer import SummaryWriter

    writer = SummaryWriter(str(folder))
    try:
        for record in records:
            for name, value in _scalars(record).items():
                writer.add_scalar(name, value, record.step)
            yield record
    finally:
        writer.close()


def _scalars(record: Record) -> dict[str, float]:
    if isinstance(record, EvaluationRecord):
        return {f"development/{name}": value for name, value in record.development.items()}
    scalars = {"loss/total": record.loss, "training/learning_rate": record.learning_rate}
    scalars |= {f"loss/{name}": value for name, value in record.terms.items()}
    scalars["training/samples_per_second"] = record.samples_per_second
    if record.gradient_norm is not None:
        scalars["training/gradient_norm"] = record.gradient_norm
    return scalars
