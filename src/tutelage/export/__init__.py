"""The student in the forms in which it leaves, and how each agrees with it."""

from tutelage.export.agreement import compare
from tutelage.export.measure_bundle import measure_bundle
from tutelage.export.onnx import OnnxModel, export_onnx
from tutelage.export.safetensors import load_student, save_student

__all__ = ["OnnxModel", "compare", "export_onnx", "load_student", "measure_bundle", "save_student"]
