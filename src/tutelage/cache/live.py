"""What a teacher says just now, in the form in which it would be stored."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.cache.builder import is_of_tokens, positions_of
from tutelage.cache.coding import Numbers
from tutelage.cache.form import Form
from tutelage.cache.parts import Part
from tutelage.cache.reader import Spec, spread
from tutelage.forms import TopK

__all__ = ["as_stored", "moved", "stored_bytes"]


def as_stored(name: str, part: Part, mask: Tensor | None, form: Form, known: Spec | None) -> Part:
    """A part as it would come back from the cache, on its own device.

    Args:
        name: Of the part.
        part: What the teacher says.
        mask: Of the batch.
        form: Of the cache.
        known: How the part is stored, where answers are. Without it a low-rank part, whose basis is not fitted yet,
            stays as it is.
    """
    device = (part.logits if isinstance(part, TopK) else part).device
    tokens = is_of_tokens(part, mask) if known is None else known.tokens
    shown = mask.bool() if tokens and mask is not None else None
    values, _ = positions_of(part, shown)
    values = moved(values, torch.device("cpu"))
    if known is None and form.needs_fitting(name, values):
        return part
    coding = form.coding(name, values) if known is None else known.coding
    if isinstance(coding, Numbers) and coding.dtype == "float32":
        return part.float() if isinstance(part, Tensor) else part
    columns = coding.encode(values)
    found = moved(coding.decode(columns), device)
    return found if shown is None else spread(found, shown)


def stored_bytes(name: str, part: Part, mask: Tensor | None, form: Form) -> float:
    """Bytes that the answer to a row takes on the mean over a batch."""
    tokens = is_of_tokens(part, mask)
    values, _ = positions_of(part, mask if tokens else None)
    values = moved(values, torch.device("cpu"))
    rows = len(mask) if tokens and mask is not None else len(values.logits if isinstance(values, TopK) else values)
    columns = form.coding(name, values).encode(values)
    return sum(column.nbytes for column in columns.values()) / rows + (8 if tokens else 0)


def moved(part: Part, device: torch.device) -> Part:
    """A part on another device."""
    return part.map(lambda tensor: tensor.to(device)) if isinstance(part, TopK) else part.to(device)
