"""What is read is what the teacher said about that row in that view; it is asked once; the form's error is stated."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest
import torch
from cached_case import CLASSES, OUTPUT, ROWS, VIEWS, Wide, cached, every, fill, make_batch, module_of, pictures, same

from tutelage.cache import Keys
from tutelage.errors import CacheError, RecipeError, SignalError
from tutelage.forms import TopK
from tutelage.losses import KLDivergence, Routed
from tutelage.losses.base import require_form
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Ensemble, ModuleTeacher, SeveralTeachers, Teacher, cached_teachers

BOTH = Request(output=True, features=frozenset({"inner"}))


def some_pairs(seed: int, count: int = 23) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(ROWS, size=count), rng.integers(VIEWS, size=count)


def test_stored_answers_are_bit_for_bit_those_of_the_row_in_the_view(tmp_path: Path) -> None:
    teacher = cached(tmp_path)
    fill(teacher, every(BOTH))
    before = module_of(teacher).asked
    for seed in range(5):
        batch = make_batch(*some_pairs(seed))
        found = teacher.ask(batch, BOTH)
        assert module_of(teacher).asked == before
        same(found, teacher.teacher.ask(batch, BOTH))
        before = module_of(teacher).asked


def test_asking_again_asks_only_what_is_missing(tmp_path: Path) -> None:
    fill(cached(tmp_path), every(views=[0]))
    teacher = cached(tmp_path)
    assert fill(teacher) > 0
    assert module_of(teacher).asked == 2 * ROWS
    again = cached(tmp_path)
    assert fill(again) == 0 and module_of(again).asked == 0


def test_a_further_signal_is_asked_alone_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    fill(cached(tmp_path), every(OUTPUT, [0]))
    teacher = cached(tmp_path)
    fill(teacher, every(BOTH, [0]))
    manifest = teacher.opened().manifest
    assert {tuple(shard.signals) for shard in manifest.shards.values()} == {("output",), ("features/inner",)}
    batch = make_batch(np.arange(9), np.zeros(9))
    same(teacher.ask(batch, BOTH), teacher.teacher.ask(batch, BOTH))


def test_rows_that_are_not_stored_go_to_the_teacher_and_are_put_among_those_that_are(tmp_path: Path) -> None:
    teacher = cached(tmp_path)
    fill(teacher, [Keys(np.arange(0, ROWS, 2), np.zeros(ROWS // 2, dtype=np.int64), ("output", "features/inner"))])
    before = module_of(teacher).asked
    batch = make_batch(np.array([4, 5, 6, 9, 8]), np.zeros(5))
    found = teacher.ask(batch, BOTH)
    assert module_of(teacher).asked == before + 2
    same(found, teacher.teacher.ask(batch, BOTH))


def test_texts_that_are_no_rows_are_never_answered_from_the_cache(tmp_path: Path) -> None:
    teacher = cached(tmp_path)
    fill(teacher)
    outside = Batch(inputs=torch.ones(3, 5), rows=torch.tensor([-1, -2, -3]), views=torch.zeros(3, dtype=torch.long))
    same(teacher.ask(outside, OUTPUT), teacher.teacher.ask(outside, OUTPUT))
    assert set(teacher.opened().manifest.shards) == {p.name for p in tmp_path.glob("answers-*")}


@pytest.mark.parametrize("k", [2, CLASSES])
def test_top_k_gives_losses_what_they_would_make_of_the_dense_answer(tmp_path: Path, k: int) -> None:
    teacher = cached(tmp_path, form="top_k", k=k, temperatures=[4.0])
    batch = make_batch(*some_pairs(1))
    dense = teacher.teacher.ask(batch, OUTPUT)
    assert dense.output is not None
    student = Signals(output=torch.randn(len(batch), CLASSES))
    expected = KLDivergence(4.0)(student, Signals(top=TopK.of(dense.output, k, (1.0, 4.0))), batch)
    live = teacher.ask(batch, OUTPUT)
    fill(teacher)
    for said in (live, teacher.ask(batch, OUTPUT)):
        torch.testing.assert_close(KLDivergence(4.0)(student, said, batch), expected, rtol=0, atol=0)
    if k == CLASSES:
        torch.testing.assert_close(KLDivergence(4.0)(student, dense, batch), expected)


def shards(teacher: object) -> list:
    return list(teacher.opened().manifest.shards.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("features", ["float16", "int8", "low_rank"])
def test_the_stated_error_is_that_of_what_is_read(tmp_path: Path, features: str) -> None:
    teacher = cached(tmp_path, features=features, rank=3, form="float16")
    fill(teacher, every(BOTH))
    batch = make_batch(np.tile(np.arange(ROWS), VIEWS), np.repeat(np.arange(VIEWS), ROWS))
    exact, found = teacher.teacher.ask(batch, BOTH), teacher.ask(batch, BOTH)
    errors = teacher.opened().manifest.errors()
    for name, x, y in (
        ("output", exact.output, found.output),
        ("features/inner", exact.features["inner"], found.features["inner"]),
    ):
        true, read = x.double().numpy(), y.double().numpy()
        error = np.sqrt(((true - read) ** 2).sum() / (true**2).sum())
        assert 0 < error < 0.6
        assert errors[name] == f"relative error {error:.2g}"


def test_int8_is_off_by_half_a_step_of_each_row_at_most(tmp_path: Path) -> None:
    teacher = cached(tmp_path, features="int8")
    fill(teacher, every(BOTH, [0]))
    batch = make_batch(np.arange(ROWS), np.zeros(ROWS))
    exact, found = (said.features["inner"] for said in (teacher.teacher.ask(batch, BOTH), teacher.ask(batch, BOTH)))
    step = exact.abs().amax(1, keepdim=True) / 127
    assert ((exact - found).abs() <= step / 2 * (1 + 1e-5)).all()
    assert ((exact - found).abs() > step / 4).any()


def test_low_rank_keeps_the_principal_components_of_the_first_shard(tmp_path: Path) -> None:
    teacher = cached(tmp_path, features="low_rank", rank=2, shard_rows=ROWS * VIEWS)
    fill(teacher, every(BOTH))
    batch = make_batch(np.tile(np.arange(ROWS), VIEWS), np.repeat(np.arange(VIEWS), ROWS))
    x = teacher.teacher.ask(batch, BOTH).features["inner"].double().numpy()
    mean = x.mean(0)
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    best = (u[:, :2] * s[:2]) @ vt[:2] + mean
    found = teacher.ask(batch, BOTH).features["inner"].numpy()
    np.testing.assert_allclose(found, best, atol=5e-3)


class Tokens(torch.nn.Module):
    """An answer for each token, which depends on the token alone; padding gives numbers of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.double().sin(), x.double().cos(), x.double()], -1).float()


def sentences(rows: np.ndarray, views: np.ndarray, length: int | None = None) -> Batch:
    rows = np.asarray(rows)
    lengths = 1 + rows % 6
    mask = torch.arange(length or int(lengths.max()))[None] < torch.as_tensor(lengths)[:, None]
    inputs = torch.as_tensor(rows)[:, None] + torch.arange(mask.shape[1])[None] / 10
    at = torch.as_tensor(rows.astype(np.int64))
    return Batch(inputs=inputs, rows=at, views=torch.as_tensor(np.asarray(views, dtype=np.int64)), mask=mask)


@pytest.mark.parametrize("form", ["dense", "top_k"])
def test_tokens_are_stored_without_padding_and_read_at_the_padding_of_the_batch(tmp_path: Path, form: str) -> None:
    teacher = cached(tmp_path, ModuleTeacher(Tokens), form=form, k=3)
    fill(teacher, every(views=[0]), batch=sentences)
    words = int((1 + np.arange(ROWS) % 6).sum())
    assert sum(s.bytes for s in shards(teacher)) < 4 * (3000 + words * (12 if form == "dense" else 24))
    for length in (6, 9):
        rows = np.random.default_rng(0).permutation(ROWS)[:11]
        batch = sentences(rows, np.zeros(11), length)
        assert batch.mask is not None
        exact = teacher.teacher.ask(batch, OUTPUT).output
        found = teacher.ask(batch, OUTPUT)
        assert exact is not None
        if form == "top_k":
            assert found.top is not None
            exact, dense = torch.log_softmax(exact, -1), found.top.dense()
            torch.testing.assert_close(dense[batch.mask], exact[batch.mask], atol=1e-6, rtol=0)
            continue
        assert found.output is not None and found.output.shape == (11, length, 3)
        torch.testing.assert_close(found.output[batch.mask], exact[batch.mask], atol=0, rtol=0)
        assert not found.output[~batch.mask].any()


def test_tokens_that_are_not_those_that_were_answered_are_refused(tmp_path: Path) -> None:
    teacher = cached(tmp_path, ModuleTeacher(Tokens))
    fill(teacher, every(views=[0]), batch=sentences)
    other = sentences(np.arange(4), np.zeros(4))
    assert other.mask is not None
    with pytest.raises(CacheError, match="more or fewer tokens"):
        teacher.ask(Batch(inputs=other.inputs, rows=other.rows, views=other.views, mask=other.mask | True), OUTPUT)


class Samples(Teacher):
    """Names as many classes as it happens to, another number in each batch."""

    def load(self, device: torch.device) -> None:
        pass

    def check(self, request: Request) -> None:
        pass

    def ask(self, batch: Batch, request: Request) -> Signals:
        assert isinstance(batch.inputs, torch.Tensor)
        k = 1 + int(batch.rows[0]) % 3
        logits = torch.nn.functional.pad(batch.inputs, (0, CLASSES - 5))
        return Signals(top=TopK.of(logits, k)) if request.output else Signals()

    def fingerprint(self) -> str:
        return "5" * 64


def test_a_teacher_that_names_few_classes_is_stored_as_it_answers_whatever_their_number(tmp_path: Path) -> None:
    teacher = cached(tmp_path, Samples(), shard_rows=15)
    fill(teacher)
    rows = np.arange(0, ROWS, 5)  # the first of a batch: those decide how many classes are named
    stored = teacher.ask(make_batch(rows, np.zeros(len(rows))), OUTPUT)
    assert stored.top is not None
    for at, row in enumerate(rows.tolist()):
        alone = teacher.teacher.ask(make_batch(np.array([row]), np.zeros(1)), OUTPUT)
        torch.testing.assert_close(stored.dense()[at], alone.dense()[0], atol=1e-6, rtol=0)


def test_members_are_cached_each_on_its_own_and_together(tmp_path: Path) -> None:
    members = {
        name: cached(tmp_path / name, ModuleTeacher(lambda seed=seed: Wide(seed))) for seed, name in enumerate("ab")
    }
    ensemble = Ensemble(list(members.values()))
    several = SeveralTeachers(dict(members), "a")
    assert cached_teachers(ensemble) == cached_teachers(several) == list(members.values())
    batch = make_batch(np.arange(6), np.zeros(6))
    before = ensemble.ask(batch, OUTPUT)
    for member in members.values():
        fill(member)
    counts = [module_of(member).asked for member in members.values()]
    same(ensemble.ask(batch, OUTPUT), before)
    assert [module_of(member).asked for member in members.values()] == counts
    request = Request(output=True, members={"b": BOTH})
    whole = cached(tmp_path / "whole", SeveralTeachers({n: m.teacher for n, m in members.items()}, "a"))
    said = whole.ask(batch, request)
    fill(whole, every(request))
    found = whole.ask(batch, request)
    same(found, said)
    same(found.members["b"], said.members["b"])


def test_the_fingerprint_is_the_teachers_own_unless_the_form_changes_its_answers(tmp_path: Path) -> None:
    plain = cached(tmp_path / "a")
    assert plain.fingerprint() == plain.teacher.fingerprint()
    others = [
        cached(tmp_path / "b", form="float16"),
        cached(tmp_path / "c", features="int8"),
        cached(tmp_path / "d", form="top_k", k=2),
        cached(tmp_path / "e", form="top_k", k=3),
        cached(tmp_path / "f", form="top_k", k=2, temperatures=[2.0]),
    ]
    assert len({plain.fingerprint(), *(other.fingerprint() for other in others)}) == 6
    assert cached(tmp_path / "g", form="float16", k=5).fingerprint() == others[0].fingerprint()


def test_a_lazy_teacher_is_not_loaded_while_all_is_stored_and_is_when_something_is_missing(tmp_path: Path) -> None:
    fill(cached(tmp_path, lazy=True), every(views=[0]))
    teacher = cached(tmp_path, lazy=True)
    batch = make_batch(np.arange(6), np.zeros(6))
    stored = teacher.ask(batch, OUTPUT)
    teacher.check(OUTPUT)
    assert fill(teacher, every(views=[0])) == 0
    assert teacher.teacher.module is None and teacher.as_module() is None and "not loaded" in teacher.describe()
    digest = teacher.fingerprint()
    same(stored, cached(tmp_path / "other").ask(batch, OUTPUT))
    teacher.ask(make_batch(np.arange(6), np.ones(6)), OUTPUT)
    assert teacher.teacher.module is not None and teacher.fingerprint() == digest
    other = cached(tmp_path, ModuleTeacher(functools.partial(Wide, 3)), lazy=True)
    assert other.teacher.module is not None  # other settings: it has to be loaded to be known


def test_the_answers_of_a_module_made_in_python_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    """Neither says what it is made from, which does not make them one."""
    first, second = Wide(0), Wide(1)
    for kind, given in {"module": lambda module: module, "factory": lambda module: lambda: module}.items():
        fill(cached(tmp_path / kind, ModuleTeacher(given(first)), lazy=True), every(views=[0]))
        with pytest.raises(CacheError, match="stale"):
            fill(cached(tmp_path / kind, ModuleTeacher(given(second)), lazy=True), every(views=[0]))


def test_answers_that_are_no_numbers_are_never_stored(tmp_path: Path) -> None:
    class Broken(Wide):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / torch.where(x[:, :1] > 1.5, 0.0, 1.0) * 0.0

    teacher = cached(tmp_path, ModuleTeacher(Broken))
    with pytest.raises(SignalError, match="NaN"):
        fill(teacher)


def test_the_first_row_of_which_a_teacher_says_nan_is_named(tmp_path: Path) -> None:
    class Broken(Wide):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = (x[:, None] == pictures()[None]).all(-1).float().argmax(1)
            return super().forward(x) + torch.where((rows == 12) | (rows == 13), torch.nan, 0.0)[:, None]

    with pytest.raises(SignalError, match=r"NaN for 2 of 5 rows(.|\n)* row 12\n"):
        fill(cached(tmp_path, ModuleTeacher(Broken)), every(views=[0]))


def test_answers_whose_shape_changes_are_refused(tmp_path: Path) -> None:
    class Square(Wide):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) @ torch.ones(CLASSES, 2 + int(x[0, 0] > 0))

    with pytest.raises(SignalError, match="shape"):
        fill(cached(tmp_path, ModuleTeacher(Square)))


@pytest.mark.parametrize(
    "settings",
    [{"form": "topk"}, {"k": 0}, {"rank": 0}, {"temperatures": [0.0]}, {"features": "int4"}, {"shard_rows": 0}],
)
def test_settings_that_say_nothing_are_refused(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        cached(tmp_path, **settings)


def test_a_temperature_that_was_not_stored_is_refused_before_anything_is_asked_for(tmp_path: Path) -> None:
    said = cached(tmp_path, form="top_k", k=2, temperatures=[2.0]).ask(make_batch(np.arange(3), np.zeros(3)), OUTPUT)
    require_form(KLDivergence(2.0), said)
    with pytest.raises(SignalError, match="temperature 4"):
        require_form(KLDivergence(4.0), said)
    with pytest.raises(SignalError, match="temperature 4"):
        require_form(Routed(KLDivergence(4.0)), said)


def test_top_k_of_what_is_no_distribution_is_refused(tmp_path: Path) -> None:
    class One(Wide):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[:, :1]

    with pytest.raises(SignalError, match="top_k"):
        cached(tmp_path, ModuleTeacher(One), form="top_k").ask(make_batch(np.arange(3), np.zeros(3)), OUTPUT)
