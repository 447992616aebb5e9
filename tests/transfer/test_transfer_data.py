from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, Images, ShiftFlip, Splits

RNG = np.random.default_rng(0)
X = RNG.random((600, 4)).astype(np.float32)
Y = RNG.choice(3, 600, p=[0.7, 0.2, 0.1])


def load(x: np.ndarray = X, y: Any = Y, **settings: Any) -> Any:
    return Data(source=Arrays(x, y, classes=["a", "b", "c"] if y is Y else None), **settings).load()


def test_labelled_counts_and_shares_are_stratified_and_only_touch_training_rows() -> None:
    data, all_labelled = load(labelled=60), load()
    train = data.rows("train")
    assert len(data.labelled_rows) == 60
    assert set(data.labelled_rows.tolist()) <= set(train.tolist())
    shares = np.bincount(Y[data.labelled_rows]) / 60 - np.bincount(Y[train]) / len(train)
    assert np.abs(shares).max() < 1.5 / 60
    for split in ("development", "test"):
        assert data.labelled[data.rows(split)].all()
    assert len(load(labelled=0.5).labelled_rows) == round(0.5 * len(train))
    assert len(load(labelled=1.0).labelled_rows) == len(all_labelled.labelled_rows) == len(train)
    assert len(load(labelled=1).labelled_rows) == 1
    assert len(load(labelled=0).labelled_rows) == 0
    assert set(load(labelled=20).labelled_rows.tolist()) <= set(data.labelled_rows.tolist())


def test_a_withheld_label_is_in_neither_labels_nor_batch_nor_display() -> None:
    y = Y + 1
    data = load(y=y, labelled=30)
    hidden = np.setdiff1d(data.rows("train"), data.labelled_rows)
    batch = data.batch(hidden)
    assert not batch.labelled.any()
    assert (batch.labels == 0).all()
    assert (data.labels[hidden] == 0).all()
    assert data.display(int(hidden[0]))["label"] is None
    np.testing.assert_array_equal(data.batch(data.labelled_rows).labels.numpy(), y[data.labelled_rows])


def test_partly_labelled_sources_keep_what_they_have() -> None:
    y = Y.copy()
    y[::2] = -1
    data = load(y=y)
    assert (data.labelled == (np.arange(600) % 2 == 1)).all()
    assert len(load(y=y, labelled=0.5).labelled_rows) == round(0.5 * len(data.labelled_rows))
    with pytest.raises(DataError, match=r"data\.labelled(.|\n)*the training rows that the source labels"):
        load(y=y, labelled=590)
    with pytest.raises(DataError, match="at most 0"):
        load(y=None, labelled=5)


def test_labels_that_are_values_are_chosen_without_classes() -> None:
    data = load(y=RNG.random(600), labelled=50)
    assert len(data.labelled_rows) == 50
    assert data.labels.dtype == np.float32
    assert data.display(int(data.labelled_rows[0]))["label"] == f"{data.labels[data.labelled_rows[0]]:.6g}"
    several = load(y=RNG.random((600, 2)), labelled=50)
    assert several.batch(several.labelled_rows[:3]).labels.shape == (3, 2)
    assert (several.labels[several.rows("train")] != 0).all(1).sum() == 50


def test_limit_keeps_that_many_training_rows_and_leaves_the_others_alone() -> None:
    data, every = load(limit=100), load()
    assert data.sizes["train"] == 100
    assert set(data.rows("train").tolist()) < set(every.rows("train").tolist())
    np.testing.assert_array_equal(data.rows("test"), every.rows("test"))
    assert set(load(limit=40).rows("train").tolist()) < set(data.rows("train").tolist())
    assert data.notes == [f"100 of {every.sizes['train']} training rows used (data.limit)"]
    assert load(limit=10**6).sizes == every.sizes


def test_batches_carry_rows_views_and_labels() -> None:
    batch = load().batch(np.array([5, 2, 5]))
    np.testing.assert_array_equal(batch.inputs.numpy(), X[[5, 2, 5]])
    assert batch.rows.tolist() == [5, 2, 5]
    assert batch.views.tolist() == [0, 0, 0]
    assert batch.labels.tolist() == Y[[5, 2, 5]].tolist()
    assert batch.mask is None
    assert load(y=None).batch(np.array([1])).labelled is None
    example = load().example(3)
    np.testing.assert_array_equal(example.rows.numpy(), load().rows("train")[:3])


def test_display_shows_numbers_and_the_name_of_the_class() -> None:
    shown = load().display(7)
    assert shown["kind"] == "array"
    assert shown["label"] == "abc"[Y[7]]
    np.testing.assert_allclose(shown["input"], X[7])


def test_the_fingerprint_follows_rows_splits_and_labels_and_nothing_else() -> None:
    base = load().fingerprint
    assert base == load(limit=None).fingerprint
    nudged = X.copy()
    nudged[3, 1] = np.nextafter(nudged[3, 1], 2)
    relabelled = Y.copy()
    relabelled[3] = (relabelled[3] + 1) % 3
    other = {
        load(x=nudged).fingerprint,
        load(x=X[::-1].copy()).fingerprint,
        Data(source=Arrays(X, relabelled, classes=["a", "b", "c"])).load().fingerprint,
        load(splits=Splits(seed=1)).fingerprint,
        load(labelled=100).fingerprint,
        load(limit=100).fingerprint,
        load(y=None).fingerprint,
    }
    assert base not in other
    assert len(other) == 7


def test_rows_of_a_group_have_one_number_and_rows_without_one_stand_alone() -> None:
    names = [f"article {i // 6}" if i % 5 else "" for i in range(60)]
    data = Data(
        source=Arrays(np.arange(60.0, dtype=np.float32)[:, None], group=names), splits=Splits(development=0)
    ).load()
    rows = np.arange(60)[::-1]
    groups = data.groups(rows)
    assert groups is not None
    assert groups.dtype == np.int64
    alone = [name or f"row {row}" for row, name in enumerate(names)]
    for one, number in zip(rows, groups, strict=True):
        same = {int(row) for row, other in zip(rows, groups, strict=True) if other == number}
        assert same == {row for row in range(60) if alone[row] == alone[one]}
    assert load().groups(np.arange(3)) is None


def test_the_fingerprint_of_the_inputs_follows_what_the_models_see() -> None:
    pixels = RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8)

    def of(**settings: Any) -> str:
        return Data(source=Arrays(pixels), **settings).load().inputs_fingerprint

    found = {
        of(),
        of(images=Images(mean=[0.5])),
        of(views=ShiftFlip(1)),
        of(views=ShiftFlip(2)),
        of(views=ShiftFlip(1, seed=1)),
    }
    assert len(found) == 5
    # The number of views is not what a view looks like: a cache stays valid when more views are asked for.
    assert of(views=ShiftFlip(1)) == of(views=ShiftFlip(1, count=3))
    assert load().inputs_fingerprint == load(labelled=3, splits=Splits(seed=4)).inputs_fingerprint


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"labelled": -1}, "data.labelled"),
        ({"labelled": 1.5}, "data.labelled"),
        ({"limit": 0}, "data.limit"),
        ({"labelled_share": 0.0}, "data.labelled_share"),
        ({"labelled_share": 1.1}, "data.labelled_share"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_the_constructor(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Data(source=Arrays(X), **settings)
    assert caught.value.key == key
