"""Students: the ways a small model is made."""

from tutelage.students.base import Student
from tutelage.students.cut import CutStudent
from tutelage.students.hugging_face import HuggingFaceStudent
from tutelage.students.module import ModuleStudent
from tutelage.students.parameters import ParameterCount, parameter_count
from tutelage.students.peers import Peers
from tutelage.students.pretrained import PretrainedStudent
from tutelage.students.reused_classifier import ReusedClassifier
from tutelage.students.standardized import StandardizedStudent

__all__ = [
    "CutStudent",
    "HuggingFaceStudent",
    "ModuleStudent",
    "ParameterCount",
    "Peers",
    "PretrainedStudent",
    "ReusedClassifier",
    "StandardizedStudent",
    "Student",
    "parameter_count",
]
