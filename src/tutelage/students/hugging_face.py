"""A small pretrained Hugging Face model as a student."""

from __future__ import annotations

from typing import Literal

from torch import nn

from tutelage.students.base import Student
from tutelage.teachers import Teacher
from tutelage.teachers.encoder import Pooling
from tutelage.teachers.hugging_face import load_hugging_face

__all__ = ["HuggingFaceStudent"]


class HuggingFaceStudent(Student):
    """A pretrained model in a local folder, trained on from its own weights, in float32.

    Args:
        path: A folder with weights in safetensors format, or `package:NAME/sub/path`.
        head: `classification`, `embedding`, or `auto`: as the folder says (see `HuggingFaceTeacher`).
        pooling: How an embedding is made of the hidden states; `auto`: as the folder says, else the mean.
        normalize: Whether embeddings have unit length; None: as the folder says, else yes.
        attention: The implementation of attention.
    """

    def __init__(
        self,
        path: str,
        head: Literal["auto", "classification", "embedding"] = "auto",
        *,
        pooling: Literal["auto"] | Pooling = "auto",
        normalize: bool | None = None,
        attention: Literal["eager", "sdpa"] = "sdpa",
    ) -> None:
        self.path = path
        self.head = head
        self.pooling = pooling
        self.normalize = normalize
        self.attention = attention

    def build(self, teacher: Teacher) -> nn.Module:
        """Loads the model, in training mode; the teacher is not used.

        Raises:
            ModelError: The folder can't be loaded; see `load_hugging_face`.
            MissingExtra: transformers is not installed.
        """
        return load_hugging_face(
            self.path,
            key="student.path",
            head=self.head,
            pooling=self.pooling,
            normalize=self.normalize,
            attention=self.attention,
        ).train()
