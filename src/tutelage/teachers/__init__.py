"""Teachers: whatever can be asked about a batch."""

from tutelage.teachers.base import Teacher, TransferFacts
from tutelage.teachers.cached import Cached
from tutelage.teachers.caches import cached_teachers, uncached
from tutelage.teachers.catboost_teacher import CatBoostTeacher
from tutelage.teachers.column import ColumnTeacher
from tutelage.teachers.encoder import SentenceEncoder
from tutelage.teachers.ensemble import Ensemble
from tutelage.teachers.function import FunctionTeacher
from tutelage.teachers.gate import ConfidenceGate, EntropyGate, FunctionGate, ModuleGate, SampleGate
from tutelage.teachers.graph import GraphTeacher
from tutelage.teachers.hugging_face import HuggingFaceTeacher
from tutelage.teachers.lightgbm_teacher import LightGBMTeacher
from tutelage.teachers.module import ModuleTeacher
from tutelage.teachers.onnx import OnnxTeacher
from tutelage.teachers.open_inference import OpenInference
from tutelage.teachers.openai_compatible import OpenAICompatible
from tutelage.teachers.openvino import OpenVinoTeacher
from tutelage.teachers.several import SeveralTeachers
from tutelage.teachers.sklearn_teacher import SklearnTeacher
from tutelage.teachers.tabular import TabularTeacher
from tutelage.teachers.torch_teacher import TorchTeacher
from tutelage.teachers.xgboost_teacher import XGBoostTeacher

__all__ = [
    "Cached",
    "CatBoostTeacher",
    "ColumnTeacher",
    "ConfidenceGate",
    "Ensemble",
    "EntropyGate",
    "FunctionGate",
    "FunctionTeacher",
    "GraphTeacher",
    "HuggingFaceTeacher",
    "LightGBMTeacher",
    "ModuleGate",
    "ModuleTeacher",
    "OnnxTeacher",
    "OpenAICompatible",
    "OpenInference",
    "OpenVinoTeacher",
    "SampleGate",
    "SentenceEncoder",
    "SeveralTeachers",
    "SklearnTeacher",
    "TabularTeacher",
    "Teacher",
    "TorchTeacher",
    "TransferFacts",
    "XGBoostTeacher",
    "cached_teachers",
    "uncached",
]
