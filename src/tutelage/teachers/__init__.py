"""Teachers: whatever can be asked about a batch."""

from tutelage.teachers.base import Teacher, TransferFacts
from tutelage.teachers.cached import Cached, cached_teachers
from tutelage.teachers.encoder import SentenceEncoder
from tutelage.teachers.ensemble import Ensemble
from tutelage.teachers.gate import ConfidenceGate, EntropyGate, FunctionGate, ModuleGate, SampleGate
from tutelage.teachers.hugging_face import HuggingFaceTeacher
from tutelage.teachers.module import ModuleTeacher
from tutelage.teachers.open_inference import OpenInference
from tutelage.teachers.openai_compatible import OpenAICompatible
from tutelage.teachers.several import SeveralTeachers
from tutelage.teachers.torch_teacher import TorchTeacher

__all__ = [
    "ConfidenceGate",
    "Cached",
    "Ensemble",
    "EntropyGate",
    "FunctionGate",
    "HuggingFaceTeacher",
    "ModuleGate",
    "ModuleTeacher",
    "OpenAICompatible",
    "OpenInference",
    "SampleGate",
    "SentenceEncoder",
    "SeveralTeachers",
    "Teacher",
    "TorchTeacher",
    "TransferFacts",
    "cached_teachers",
]
