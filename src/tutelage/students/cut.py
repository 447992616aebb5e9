"""A student cut from a Hugging Face teacher: fewer layers, narrower layers, or both."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tutelage.errors import MissingExtra, ModelError, RecipeError
from tutelage.standardized import unwrapped
from tutelage.students.base import Student
from tutelage.students.depth import copy_layers, layer_list
from tutelage.students.dropout import set_dropout
from tutelage.students.width import Widths, cut_width, planned_widths
from tutelage.teachers import SentenceEncoder, Teacher

__all__ = ["CutStudent"]


class CutStudent(Student):
    """The teacher with chosen layers, and of those the strongest parts: it starts from what the teacher knows.

    *Depth.* The chosen layers are copied in their order; everything around them (embeddings, final norm, head) stays.
    With all layers and no other change the student is the teacher. It works for each Hugging Face model with a single
    stack of layers, encoders and decoders alike.

    *Width.* A layer's heads have the teacher's size `d`, so `hidden_size = heads · d`: one of the two gives the other.
    What is kept is chosen by weight magnitude: each of the tensors named here is squared and divided by its sum, so
    that all count alike, and these shares are added.

    * Residual channels, the same ones in the whole model: the gains of every LayerNorm.
    * Heads, in each layer by itself: their rows of query, key and value, their columns of the output projection.
    * Intermediate units, in each layer by itself: their row of the first feed-forward matrix, their column of the
      second.

    The embeddings, norms, pooler and classifier are cut to the kept channels.

    Width can be cut in models built of BERT's or DistilBERT's blocks (BERT, MiniLM, RoBERTa, XLM-R, ...). A narrower
    student's hidden states differ in size from the teacher's, so a loss on them needs a projector.

    The student is in float32, shares no memory with the teacher, and all of it is trained.

    Sources: depth as in Sanh et al., "DistilBERT", 2019; magnitude as in Han et al., "Learning both Weights and
    Connections", 2015, applied to whole channels, heads and units.

    Args:
        layers: The teacher's layers to keep, counted from 0, in order. None: all.
        hidden_size: Residual channels to keep.
        heads: Attention heads to keep in each layer.
        intermediate_size: Feed-forward units to keep in each layer.
        dropout: Sets each dropout probability of the student; None leaves the teacher's. With a student that starts
            close to its teacher and is to match it, 0 is best: dropout is noise the teacher's answers don't have.

    Raises:
        RecipeError: Layers repeat, are out of order or negative, or a number is out of its range.
    """

    def __init__(
        self,
        layers: list[int] | None = None,
        hidden_size: int | None = None,
        *,
        heads: int | None = None,
        intermediate_size: int | None = None,
        dropout: float | None = None,
    ) -> None:
        if layers is not None and (not layers or layers != sorted(set(layers)) or layers[0] < 0):
            raise RecipeError(
                "student.layers",
                expected="numbers of layers from 0, in order, each once",
                found=f"{layers}",
                mend=f"did you mean {sorted({n for n in layers if n >= 0}) or [0]}?",
            )
        for name, size in (("hidden_size", hidden_size), ("heads", heads), ("intermediate_size", intermediate_size)):
            if size is not None and size < 1:
                raise RecipeError(f"student.{name}", expected="a positive number", found=f"{size}")
        if dropout is not None and not 0 <= dropout < 1:
            raise RecipeError("student.dropout", expected="a probability, 0 <= p < 1", found=f"{dropout}")
        self.layers = layers
        self.hidden_size = hidden_size
        self.heads = heads
        self.intermediate_size = intermediate_size
        self.dropout = dropout

    @property
    def outputs_in_unit(self) -> bool:
        """Yes: its head is the teacher's."""
        return True

    def build(self, teacher: Teacher) -> nn.Module:
        """The cut copy of the teacher's module, in training mode. Nothing in it is random.

        Raises:
            ModelError: The teacher is no Hugging Face model, has not these layers, or can't be cut to these widths.
            MissingExtra: transformers is not installed.
        """
        model = hugging_face_model(teacher)
        stack = layer_list(model)
        kept = list(range(len(stack))) if self.layers is None else self.layers
        if kept[-1] >= len(stack):
            raise ModelError(
                "student.layers",
                expected=f"layers of the teacher: 0 to {len(stack) - 1}",
                found=f"{kept[-1]}",
                mend=f"the last layer is {len(stack) - 1}",
            )
        widths = self._widths(model, stack)
        cut = copy_layers(model, kept)
        if widths is not None:
            cut = cut_width(cut, widths)
        if self.dropout is not None:
            set_dropout(cut, self.dropout)
        student: nn.Module = finished(cut)
        if isinstance(teacher.module, SentenceEncoder):
            student = around(student, teacher.module, narrower=self.hidden_size is not None or self.heads is not None)
        return student.train()

    def _widths(self, model: Any, stack: nn.ModuleList) -> Widths | None:
        """The checked widths, or None if only depth is cut."""
        if self.hidden_size is None and self.heads is None and self.intermediate_size is None:
            return None
        return planned_widths(
            model, stack, hidden_size=self.hidden_size, heads=self.heads, intermediate_size=self.intermediate_size
        )


def hugging_face_model(teacher: Teacher) -> Any:
    """The Hugging Face model of a loaded teacher, out of its `SentenceEncoder` if it is in one."""
    try:
        from transformers import PreTrainedModel
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "CutStudent cuts Hugging Face models") from error
    module = None if teacher.module is None else unwrapped(teacher.module)
    model = module.model if isinstance(module, SentenceEncoder) else module
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            "student",
            expected="a Hugging Face teacher to cut from",
            found=f"{teacher.describe()}, " + ("not one module" if model is None else f"a {type(model).__name__}"),
            mend="use HuggingFaceTeacher, or give the student as a module of its own (ModuleStudent)",
        )
    return model


def around(student: nn.Module, teacher: SentenceEncoder, *, narrower: bool) -> SentenceEncoder:
    """The sentence encoder of a cut token model: with the teacher's pooling, its layers after it and its length."""
    if narrower and teacher.dense is not None:
        raise ModelError(
            "student.hidden_size",
            expected="a teacher whose embedding is its pooled hidden states",
            found=f"one with {len(teacher.dense)} Dense layer(s) after the pooling, made for its own width",
            mend="cut layers or intermediate_size, or give the student as a module of its own (ModuleStudent)",
        )
    dense = [finished(layer) for layer in copy.deepcopy(list(teacher.dense or ()))]
    modes: Any = teacher.modes
    return SentenceEncoder(student, modes, normalize=teacher.normalize, dense=dense)


def finished(cut: Any) -> nn.Module:
    """In float32 and trainable throughout, whatever the teacher was."""
    if hasattr(cut, "config"):
        cut.config.dtype = torch.float32
    student: nn.Module = cut.float().requires_grad_(True)
    return student
