"""Training a student: the loop, its step, its checkpoints."""

from tutelage.training.config import Training

__all__ = ["Training"]
