"""The losses of sentence-transformers 6.2.0 that tutelage has too, and those it has not.

What they compute of embeddings is `compute_loss_from_embeddings`; the model that they are constructed with is not run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from others.pair import Given, Pair, Tensors

LIBRARY, VERSION = "sentence-transformers", "6.2.0"
Run = Callable[[Tensors, Tensors], Tensor]


def theirs(name: str, **named: Any) -> Callable[[list[Tensor], Any], Tensor]:
    """One of their losses, on embeddings."""
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    found: Callable[[list[Tensor], Any], Tensor] = getattr(losses, name)(None, **named).compute_loss_from_embeddings
    return found


def on_embeddings(name: str, **named: Any) -> Callable[[Given], Run]:
    """Theirs on the embeddings of both models."""

    def build(given: Given) -> Run:
        loss = theirs(name, **named)
        return lambda s, t: loss([s["output"]], [t["output"]])

    return build


def margins(given: Given) -> Run:
    """MarginMSELoss on scores: its similarity takes them for what they are."""
    loss = theirs("MarginMSELoss", similarity_fct=lambda query, document: document)
    return lambda s, t: loss([s["output"], *s["output"].unbind(1)], t["output"])


def all_pairs(given: Given) -> Run:
    """CosineSimilarityLoss on all pairs of two different rows, with the teacher's cosines for labels."""
    loss = theirs("CosineSimilarityLoss")

    def run(s: Tensors, t: Tensors) -> Tensor:
        size = len(s["output"])
        i, j = (~torch.eye(size, dtype=torch.bool)).nonzero().T
        unit = torch.nn.functional.normalize(t["output"])
        return loss([s["output"][i], s["output"][j]], (unit @ unit.T)[i, j])

    return run


def others_as_documents(given: Given) -> Run:
    """DistillKLDivLoss with each row as a query and all others as its documents, in turn."""
    loss = theirs("DistillKLDivLoss", temperature=10.0)

    def run(s: Tensors, t: Tensors) -> Tensor:
        turns = range(1, len(s["output"]))
        products = t["output"] @ t["output"].T
        labels = torch.stack([products.roll(-turn, 1).diagonal() for turn in turns], 1)
        return loss([s["output"], *(s["output"].roll(-turn, 0) for turn in turns)], labels)

    return run


PAIRS = [
    Pair("EmbeddingMSE", "same width", "MSELoss(model)", on_embeddings("MSELoss")),
    Pair(
        "EmbeddingCosine",
        "same width",
        'EmbedDistillLoss(model, distance_metric="cosine")',
        on_embeddings("EmbedDistillLoss", distance_metric="cosine"),
        why='Its metric "mse" is MSELoss; "l2", the distance without its square, is not here.',
    ),
    Pair(
        "MarginMSE",
        "candidates",
        "MarginMSELoss(model) on scores",
        margins,
        size={"student": {"output": (16,)}, "teacher": {"output": (16,)}, "samples": 65536},
    ),
    Pair(
        "PairwiseSimilarity",
        "narrow",
        "CosineSimilarityLoss(model) on all pairs of rows",
        all_pairs,
        why="Theirs reads pairs of texts with a label: here all pairs of two rows, and the teacher's cosine, "
        "which it casts to float32.",
        size={"samples": 256},
        tolerance=1e-6,
    ),
    Pair(
        "SimilarityDistribution",
        "cosine",
        "DistillKLDivLoss(model, temperature=10) on all other rows",
        others_as_documents,
        settings={"temperature": 10.0, "similarity": "dot"},
        formula="theirs = ours · T²",
        why="Theirs multiplies by the square of the student's temperature, which at those that cosines need leaves a "
        "hundredth of the loss; and its candidates are columns of the data, here the other rows.",
        convert=lambda o: o.mean * 100,
        size={"samples": 128},
    ),
]
TEXTS = "learns from pairs of texts or from labels: no teacher is imitated"
RANKS = "compares the order of scores with that of labels; no loss here compares ranks"
WRAPS = "runs another loss on parts of the model, of the embedding or of the batch"
MODEL = "runs the model on texts, so that no signals can be handed to it; the formula is that of "
SPARSE = "the same class as without `Sparse`, for another model"
ABSENT = {
    **dict.fromkeys(
        (
            "AnglELoss",
            "BatchAllTripletLoss",
            "BatchHardSoftMarginTripletLoss",
            "BatchHardTripletLoss",
            "BatchSemiHardTripletLoss",
            "CachedMultiVectorMultipleNegativesRankingLoss",
            "CachedMultipleNegativesRankingLoss",
            "CachedMultipleNegativesSymmetricRankingLoss",
            "CoSENTLoss",
            "ContrastiveLoss",
            "ContrastiveTensionLoss",
            "DenoisingAutoEncoderLoss",
            "MegaBatchMarginLoss",
            "MultiVectorMultipleNegativesRankingLoss",
            "MultipleNegativesRankingLoss",
            "MultipleNegativesSymmetricRankingLoss",
            "OnlineContrastiveLoss",
            "SoftmaxLoss",
            "SparseAnglELoss",
            "SparseCoSENTLoss",
            "SparseMultipleNegativesRankingLoss",
            "SparseTripletLoss",
            "TripletLoss",
        ),
        TEXTS,
    ),
    **dict.fromkeys(("CachedGISTEmbedLoss", "GISTEmbedLoss"), "a second model picks the negatives; it is not imitated"),
    **dict.fromkeys(
        ("ADRMSELoss", "LambdaLoss", "ListMLELoss", "ListNetLoss", "PListMLELoss", "RankNetLoss"),
        RANKS,
    ),
    **dict.fromkeys(
        ("AdaptiveLayerLoss", "CSRLoss", "CachedSpladeLoss", "Matryoshka2dLoss", "MatryoshkaLoss", "SpladeLoss"), WRAPS
    ),
    **dict.fromkeys(
        ("CSRReconstructionLoss", "FlopsLoss", "GlobalOrthogonalRegularizationLoss"), "a regulariser, no distillation"
    ),
    **dict.fromkeys(
        ("SparseCosineSimilarityLoss", "SparseDistillKLDivLoss", "SparseMSELoss", "SparseMarginMSELoss"), SPARSE
    ),
    "BinaryCrossEntropyLoss": MODEL + "BinaryCrossEntropy",
    "CrossEntropyLoss": MODEL + "CrossEntropy",
    "MultiVectorDistillKLDivLoss": MODEL + "KLDivergence, on scores of token against token",
    "MultiVectorMarginMSELoss": MODEL + "MarginMSE, on scores of token against token",
}


def names() -> set[str]:
    """Every loss that the library has, of all its kinds of models."""
    kinds = ("sentence_transformer", "cross_encoder", "sparse_encoder", "multi_vector_encoder")
    modules = [importlib.import_module(f"sentence_transformers.{kind}.losses") for kind in kinds]
    return {name for module in modules for name in module.__all__ if name.endswith("Loss")}
