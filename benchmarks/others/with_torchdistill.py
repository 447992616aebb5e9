"""The losses of torchdistill 1.1.5 (`torchdistill.losses.mid_level`) that tutelage has too, and those it has not."""

from __future__ import annotations

from torch import nn

from others.pair import Pair
from others.torchdistill_parts import (
    LOGITS,
    OUTPUTS,
    PAIRS_M,
    boundaries,
    column_norms,
    contrast,
    correlations,
    factors,
    flow,
    l1_rows,
    on,
    on_labels,
    on_pair,
    review,
    variational,
    with_labels,
    wrapped,
)
from tutelage.losses.kl_divergence import KLDivergence

LIBRARY, VERSION = "torchdistill", "1.1.5"
LAYERS = {"pairs": {"a": "b"}}
FLOWS = {"student_flows": [["a.0", "a.1"]], "teacher_flows": [["b.0", "b.1"]]}
NO_T2 = (
    "With alpha = 0, and where no labels are given, theirs returns the divergence without the factor T² that its own "
    "formula has; the gradient then shrinks as T grows."
)
PAIRS = [
    Pair(
        "KLDivergence",
        "softmax",
        "KDLoss(temperature=4, alpha=0)",
        on("output", "output", "KDLoss", **LOGITS, temperature=4.0, alpha=0.0),
        settings={"temperature": 4.0},
        formula="theirs = ours / T²",
        why=NO_T2,
        convert=lambda o: o.mean / 16,
    ),
    Pair(
        "KLDivergence",
        "pixels",
        "KDLoss(temperature=1, alpha=0) on [B, C, H, W]",
        on("output", "output", "KDLoss", **LOGITS, temperature=1.0, alpha=0.0),
        settings={"temperature": 1.0, "axis": 1},
        formula="theirs = ours · H · W",
        why="Theirs (torch's `batchmean`) sums over the pixels of a picture, so that a larger picture counts for more; "
        "ours takes their mean.",
        convert=lambda o: o.mean * o.student["output"][0, 0].numel(),
    ),
    Pair(
        "KLDivergence",
        "softmax",
        'SKDInstanceLoss(temperature=4, mode="paper")',
        on("output", "output", "SKDInstanceLoss", **LOGITS, temperature=4.0, mode="paper"),
        settings={"temperature": 4.0},
        formula="theirs = ours / T²",
        why="It is the divergence again, and the equation that it follows has no T². Its mode `code`, on the rows of "
        "which the teacher is less sure, is another loss.",
        convert=lambda o: o.mean / 16,
    ),
    Pair(
        "KLDivergence",
        "softmax",
        "KDLoss(temperature=4, alpha=0.5) with labels",
        on_labels("KDLoss", **LOGITS, temperature=4.0, alpha=0.5),
        settings={"temperature": 4.0},
        formula="theirs = ½ · ours + ½ · CrossEntropy()",
        why="One loss there is two terms here, with a weight each; with labels, theirs has the factor T².",
        convert=with_labels,
        same=False,
        size={"labels": lambda rng, size: rng.integers(1000, size=size)},
    ),
    Pair(
        "CrossEntropy",
        "classes",
        "SimpleLossWrapper(nn.CrossEntropyLoss()) with labels",
        wrapped(nn.CrossEntropyLoss(), "output"),
    ),
    Pair(
        "BinaryCrossEntropy",
        "many classes",
        "SimpleLossWrapper(nn.BCEWithLogitsLoss()) with labels",
        wrapped(nn.BCEWithLogitsLoss(), "output"),
        formula="theirs = ours / C",
        why="It is torch's loss, the mean over classes; ours is their sum, the likelihood of the row.",
        convert=lambda o: o.mean / o.student["output"].shape[1],
    ),
    Pair(
        "MeanSquaredError",
        "values",
        "SimpleLossWrapper(nn.MSELoss()) with labels",
        wrapped(nn.MSELoss(), "output"),
    ),
    Pair(
        "LogitStandardization",
        "1000 classes",
        "LogitStdKDLoss(temperature=2, alpha=0)",
        on("output", "output", "LogitStdKDLoss", **LOGITS, temperature=2.0, alpha=0.0),
        settings={"loss": KLDivergence(2.0)},
        formula="theirs = ours / T²",
        why=NO_T2,
        convert=lambda o: o.mean / 4,
    ),
    Pair(
        "DIST",
        "1000 classes",
        "DISTLoss(tau=4)",
        on("output", "output", "DISTLoss", **LOGITS, tau=4.0),
        settings={"temperature": 4.0, "variant": "paper"},
        why='The authors\' code adds 1e-8 to the denominator of ρ, as our "official" does; theirs bounds each of the '
        'two lengths from below by 1e-8, which changes nothing here, so it is our "paper".',
    ),
    Pair(
        "Hint",
        "same width",
        "SimpleLossWrapper(nn.MSELoss())",
        wrapped(nn.MSELoss(), "a.0", "b.1"),
        settings={"pairs": {"a.0": "b.1"}},
        formula="theirs = ours · 2 / C",
        why="FitNets there is torch's mean squared error, over the channels too; ours has the paper's ½ and sum over "
        "channels.",
        convert=lambda o: o.mean * 2 / o.student["a.0"].shape[1],
    ),
    Pair(
        "AttentionTransfer",
        "official",
        'ATLoss(mode="code")',
        on_pair("ATLoss", at_pairs=PAIRS_M, mode="code"),
        settings=LAYERS | {"variant": "official"},
    ),
    Pair(
        "AttentionTransfer",
        "paper",
        'ATLoss(mode="paper")',
        on_pair("ATLoss", at_pairs=PAIRS_M, mode="paper"),
        settings=LAYERS | {"variant": "paper"},
        formula="theirs = ours · 2",
        why="Equation 2 of the paper has the factor β/2; its ½ is in ours and not in theirs.",
        convert=lambda o: o.mean * 2,
    ),
    Pair(
        "FlowOfSolution",
        "paper",
        "FSPLoss(...)",
        flow,
        settings=FLOWS | {"variant": "paper"},
        formula="theirs = mean over samples of Σ_j ‖(G_S - G_T)_·j‖₂",
        why="The paper (equation 2) has the squared Frobenius norm of the difference, which is ours; theirs adds up "
        "the lengths of its columns, without a square.",
        convert=column_norms,
        same=False,
    ),
    Pair(
        "FactorTransfer",
        "second stage",
        "FTLoss(p=1)",
        factors(1),
        settings=LAYERS | {"p": 1, "variant": "official"},
    ),
    Pair(
        "FactorTransfer",
        "second stage",
        "FTLoss(p=2)",
        factors(2),
        settings=LAYERS | {"p": 2, "variant": "paper"},
    ),
    Pair(
        "ActivationBoundary",
        "maps",
        "AltActTransferLoss(margin=1)",
        boundaries,
        settings=LAYERS,
    ),
    Pair(
        "VariationalInformation",
        "maps",
        "VIDLoss(...)",
        variational,
        settings=LAYERS | {"variant": "official"},
    ),
    Pair(
        "RelationalDistance",
        "distance",
        "RKDLoss(dist_factor=1, angle_factor=0)",
        on_pair("RKDLoss", **OUTPUTS, dist_factor=1.0, angle_factor=0.0, reduction="mean"),
        settings=LAYERS,
        slower="Theirs takes distances from dot products, in one matrix product; in float32, samples that are near "
        "each other, or far from the origin, lose their digits in it. Ours takes them from differences. Of copies "
        "in a batch, which are not drawn here, theirs keeps the pair at 1e-6 in the mean distance, ours at 0.",
    ),
    Pair(
        "RelationalAngle",
        "angle",
        "RKDLoss(dist_factor=0, angle_factor=1)",
        on_pair("RKDLoss", **OUTPUTS, dist_factor=0.0, angle_factor=1.0, reduction="mean"),
        settings=LAYERS,
    ),
    Pair(
        "ProbabilisticTransfer",
        "official",
        "PKTLoss()",
        on_pair("PKTLoss", **LOGITS),
        settings=LAYERS | {"variant": "official"},
        why="Both add 1e-7 within the logarithm; theirs adds it to the features' lengths as well, which shows in the "
        "eighth digit.",
        tolerance=1e-6,
    ),
    Pair(
        "SimilarityPreserving",
        "maps",
        'SPKDLoss(reduction="batchmean")',
        on_pair("SPKDLoss", **OUTPUTS, reduction="batchmean"),
        settings=LAYERS,
        formula="theirs = ours with rows divided by their L1 norm",
        why="The paper divides each row by its L2 norm, as ours does; theirs hands the axis 1 to torch's `normalize` "
        "in the place of the norm's order, which then is 1.",
        convert=l1_rows,
        same=False,
    ),
    Pair(
        "CorrelationCongruence",
        "gaussian",
        'CCKDLoss({"type": "bilinear"}, reduction="batchmean")',
        correlations("bilinear"),
        settings=LAYERS | {"kernel": "bilinear"},
        formula="theirs = √ours / B",
        why="The paper has the squared Frobenius norm over B²; theirs takes the norm itself, whose gradient does not "
        "shrink as the models near each other.",
        convert=lambda o: o.mean.sqrt() / len(o.batch),
        same=False,
    ),
    Pair(
        "CorrelationCongruence",
        "gaussian",
        'CCKDLoss({"type": "gaussian", "gamma": 0.4, "max_p": 2}, reduction="batchmean")',
        correlations("gaussian"),
        settings=LAYERS | {"kernel": "gaussian"},
        formula="theirs = √ours / B, of features of length 1",
        why="Again the norm without its square; and the series is that of exp(-γ‖x - y‖²) for features of length 1 "
        "alone, to which ours brings them and theirs does not (here they are handed to it so).",
        convert=lambda o: o.mean.sqrt() / len(o.batch),
        same=False,
    ),
    Pair(
        "ContrastiveRepresentation",
        "vectors",
        "CRDLoss(eps=0), all of the memory as negatives, Z = 1",
        contrast,
        settings={"layer": "a", "teacher_layer": "b", "memory": 4096, "variant": "official"},
        why="Theirs draws its negatives (its own `draw` fails: there is no `self.prob`, so they have to be handed in), "
        "divides by a constant Z that the first batch sets, and adds eps to the denominators; set as ours is, "
        "value and gradients agree. Theirs also writes to its memory in each forward pass.",
    ),
    Pair(
        "InterChannelCorrelation",
        "grid",
        "ChSimLoss(...)",
        on("a.0", "b.1", "ChSimLoss", feature_pairs=PAIRS_M),
        settings={"pairs": {"a.0": "b.1"}, "variant": "official"},
        formula="theirs = ours / B",
        why="The authors' ImageNet code, which theirs follows, divides by the batch size twice, so that a larger batch "
        "has a smaller loss; their CIFAR code once, as ours does.",
        convert=lambda o: o.mean / len(o.batch),
    ),
    Pair(
        "ReviewKD",
        "two maps",
        "HierarchicalContextLoss(...) for both levels, without batch norms",
        review,
        settings={"pairs": {"a.0": "b.0", "a.1": "b.1"}},
        formula="theirs = ours · number of pairs",
        why="Theirs is a term a level, to be added up; ours is their mean. The batch norms of its fusions give place "
        "to the biases of ours (why, `tutelage explain ReviewKD` says).",
        convert=lambda o: o.mean * 2,
    ),
]
ABSENT = {
    "AffinityLoss": "the second half of KTAAD (see KTALoss): outer products of each channel's places",
    "AuxSSKDLoss": "trains SSKD's head on the teacher: there is no self-supervised task here",
    "DISTPlusLoss": "DIST with two further relations between feature maps, of which the channels' is added and not "
    "subtracted, so that the less alike they are the lower the loss; not here",
    "DictLossWrapper": "applies a loss of torch to models that return dictionaries; here a term names its output",
    "KTALoss": "the distance is that of FactorTransfer; its adapter (convolution, batch norm, ReLU) is not here",
    "PADL2Loss": "a Gaussian likelihood whose variance depends on the input, by a trained branch of the student; "
    "VariationalInformation has one variance a channel",
    "RegularizationLoss": "the norm of a module's output: a regulariser, no distillation",
    "SKDDirectionLoss": "a Mahalanobis distance of Gram matrices, of 2026; not here",
    "SRDLoss": "the logarithm of a power of the features' distance behind batch norms; not here",
    "SSKDLoss": "needs a self-supervised task on four rotations of each picture; not here",
}


def names() -> set[str]:
    """Every loss that the library has."""
    from torchdistill.losses import mid_level

    return {
        name
        for name, kind in vars(mid_level).items()
        if isinstance(kind, type) and kind.__module__ == mid_level.__name__
    }
