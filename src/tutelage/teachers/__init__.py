"""Teachers: whatever can be asked about a batch."""

from tutelage.teachers.base import Teacher, TransferFacts
from tutelage.teachers.cached import Cached, cached_teachers, uncached
from tutelage.teachers.encoder import SentenceEncoder
from tutelage.teachers.ensemble import Ensemble
from tutelage.teachers.hugging_face import HuggingFaceTeacher
from tutelage.teachers.module import ModuleTeacher
from tutelage.teachers.several import SeveralTeachers
from tutelage.teachers.torch_teacher import TorchTeacher

__all__ = [
    "Cached",
    "Ensemble",
    "HuggingFaceTeacher",
    "ModuleTeacher",
    "SentenceEncoder",
    "SeveralTeachers",
    "Teacher",
    "TorchTeacher",
    "TransferFacts",
    "cached_teachers",
    "uncached",
]
