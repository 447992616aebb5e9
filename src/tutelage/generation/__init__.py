"""Texts that a chat model writes about the rows of a source: a transfer set for students that are language models."""

from tutelage.generation.recipe import ChatModel, Generation, Prompts
from tutelage.generation.run import Generated, generate

__all__ = ["ChatModel", "Generated", "Generation", "Prompts", "generate"]
