from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax
from teacher_case import Net, batch_of
from torch import Tensor, nn

from tutelage.errors import ModelError, RecipeError
from tutelage.forms import TopK
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Ensemble, ModuleTeacher, Teacher

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5)) * 3  # members, rows, classes
WEIGHTS = [1.0, 2.0, 5.0]
SHARES = np.array(WEIGHTS)[:, None, None] / 8


class Says(nn.Module):
    """Answers fixed logits."""

    def __init__(self, logits: Any, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(np.asarray(logits)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x]


def ensemble(answers: Any, dtype: torch.dtype = torch.float64, **settings: Any) -> Ensemble:
    members: list[Teacher] = [ModuleTeacher(Says(answer, dtype)) for answer in answers]
    teacher = Ensemble(members, **settings)
    teacher.load(CPU)
    return teacher


def answer(teacher: Ensemble, rows: int = 4) -> np.ndarray[Any, Any]:
    output = teacher.ask(batch_of(torch.arange(rows)), Request(output=True)).output
    assert output is not None
    return output.numpy()


def test_the_mean_of_probabilities_is_that_of_float64_and_its_log_is_answered() -> None:
    mean = (softmax(LOGITS, axis=-1) * SHARES).sum(0)
    found = answer(ensemble(LOGITS, weights=WEIGHTS))
    np.testing.assert_allclose(found, np.log(mean), atol=1e-12)
    np.testing.assert_allclose(softmax(found, axis=-1), mean, atol=1e-12)


def test_the_mean_of_sigmoid_probabilities_is_answered_as_its_logits() -> None:
    found = answer(ensemble(LOGITS, weights=WEIGHTS, outputs="sigmoid"))
    np.testing.assert_allclose(found, logit((expit(LOGITS) * SHARES).sum(0)), atol=1e-12)


def test_the_mean_of_logits_is_weighted_and_without_weights_plain() -> None:
    np.testing.assert_allclose(
        answer(ensemble(LOGITS, mean_of="logits", weights=WEIGHTS)), (LOGITS * SHARES).sum(0), atol=1e-12
    )
    np.testing.assert_allclose(answer(ensemble(LOGITS, mean_of="logits")), LOGITS.mean(0), atol=1e-12)


def test_the_softmax_is_taken_over_the_class_axis_of_a_segmentation() -> None:
    logits = RNG.normal(size=(2, 4, 5, 2, 3))
    found = answer(ensemble(logits, axis=1))
    np.testing.assert_allclose(found, np.log(softmax(logits, axis=2).mean(0)), atol=1e-12)


@pytest.mark.parametrize("outputs", ["softmax", "sigmoid"])
def test_certain_members_do_not_underflow_to_minus_infinity(outputs: Literal["softmax", "sigmoid"]) -> None:
    found = answer(ensemble(np.array([[[400.0, -400.0]], [[300.0, -500.0]]]), torch.float32, outputs=outputs), rows=1)
    assert np.isfinite(found).all()
    # Of softmax: the mean of e^-800 and e^-800; of sigmoid: that of e^-400 and e^-500.
    assert found[0, 1] == pytest.approx(-800 if outputs == "softmax" else -400 - np.log(2), abs=1e-3)


def test_half_precision_members_are_averaged_in_float32() -> None:
    found = answer(ensemble(LOGITS, torch.bfloat16))
    rounded = torch.as_tensor(LOGITS).bfloat16().double().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.log(softmax(rounded, axis=-1).mean(0)), atol=1e-5)


def test_members_with_other_classes_are_refused_and_named() -> None:
    members: list[Teacher] = [ModuleTeacher(Net), ModuleTeacher(lambda: Net(classes=5))]
    teacher = Ensemble(members)
    teacher.load(CPU)
    with pytest.raises(ModelError, match=r"\(2, 3\).*\(2, 5\)"):
        teacher.ask(batch_of(torch.zeros(2, 1, 6, 6)), Request(output=True))


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1)])
def test_a_softmax_over_one_value_or_over_the_rows_is_refused(shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape)
    with pytest.raises(ModelError, match="mean_of: logits"):
        answer(ensemble(values))
    np.testing.assert_allclose(answer(ensemble(values, mean_of="logits")), values.mean(0), atol=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_that_give_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.weights"):
        Ensemble([ModuleTeacher(Net), ModuleTeacher(Net)], weights=weights)
    with pytest.raises(RecipeError, match=r"teacher\.members"):
        Ensemble([])


def test_the_fingerprint_tells_the_kind_of_mean_and_the_shares_but_not_their_scale() -> None:
    plain = ensemble(LOGITS).fingerprint()
    assert ensemble(LOGITS, weights=[2.0, 2.0, 2.0]).fingerprint() == plain
    others = [{"mean_of": "logits"}, {"weights": WEIGHTS}, {"outputs": "sigmoid"}, {"axis": 1}]
    assert len({plain, *(ensemble(LOGITS, **settings).fingerprint() for settings in others)}) == 5


def test_a_member_whose_time_is_not_this_machines_leaves_the_ensemble_untimed() -> None:
    class Remote(ModuleTeacher):
        def as_module(self) -> None:
            return None

    teacher = Ensemble([ModuleTeacher(Net), Remote(Net)])
    teacher.load(CPU)
    assert teacher.as_module() is None


def test_a_mean_that_there_is_not_is_refused_instead_of_taking_another() -> None:
    for settings in ({"mean_of": "logit"}, {"outputs": "sigmoids"}):
        with pytest.raises(ModelError, match=r"did you mean `(logits|sigmoid)`"):
            ensemble(LOGITS, **settings)


class LabelsAlone(Teacher):
    """A black box that gives nothing but a class."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def load(self, device: torch.device) -> None: ...

    def check(self, request: Request) -> None: ...

    def ask(self, batch: Batch, request: Request) -> Signals:
        return Signals(top=TopK.of_labels(torch.tensor(self.labels), 3))

    def fingerprint(self) -> str:
        return str(self.labels)


def test_votes_of_black_boxes_become_shares_and_a_class_without_votes_stays_without_mass() -> None:
    ensemble = Ensemble([LabelsAlone([0, 1]), LabelsAlone([0, 2]), LabelsAlone([1, 2])])
    batch = Batch(inputs=torch.zeros(2, 1), rows=torch.arange(2), views=torch.zeros(2, dtype=torch.long))
    says = ensemble.ask(batch, Request(output=True))
    assert says.output is None
    torch.testing.assert_close(says.dense().exp(), torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))


@pytest.mark.parametrize("settings", [{"mean_of": "logits"}, {"outputs": "sigmoid"}])
def test_a_mean_of_logits_over_members_that_have_none_is_refused_with_the_mean_that_they_have(settings: Any) -> None:
    """Catches NaN: minus infinity plus infinity, or times 0."""
    dense = ModuleTeacher(Says(RNG.normal(size=(2, 3))))
    teacher = Ensemble([dense, LabelsAlone([0, 1])], **settings)
    teacher.load(CPU)
    with pytest.raises(ModelError, match=r"found: +LabelsAlone(.|\n)*mean_of: probabilities"):
        teacher.ask(batch_of(torch.arange(2)), Request(output=True))
