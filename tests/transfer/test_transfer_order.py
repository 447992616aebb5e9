from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, Order, ShiftFlip, Splits, evaluation_batches, in_original_order
from tutelage.transfer.order import by_length


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 5),
    with_lengths=st.booleans(),
    epoch=st.integers(0, 4),
)
def test_every_row_comes_once_an_epoch_except_the_remainder(
    n: int, batch_size: int, seed: int, with_lengths: bool, epoch: int
) -> None:
    rows = np.arange(n) * 7 + 3
    lengths = np.random.default_rng(0).integers(1, 50, n) if with_lengths else None
    order = Order(rows, batch_size, seed=seed, lengths=lengths)
    size = min(n, batch_size)
    assert order.steps_per_epoch == n // size
    start = epoch * order.steps_per_epoch
    seen = np.concatenate([order.batch(start + step)[0] for step in range(order.steps_per_epoch)])
    assert len(seen) == len(set(seen.tolist())) == n // size * size
    assert set(seen.tolist()) <= set(rows.tolist())


def test_random_access_equals_sequence_in_a_new_process_state() -> None:
    def make() -> Order:
        rows = np.arange(100)
        lengths = np.random.default_rng(0).integers(1, 50, 100)
        return Order(
            rows, 16, seed=3, lengths=lengths, labelled=rows[:20], labelled_share=0.25, views=ShiftFlip(count=2)
        )

    sequential = make()
    expected = [sequential.batch(step) for step in range(40)]
    for step in (39, 0, 17, 38, 1, 17):
        rows, views = make().batch(step)
        np.testing.assert_array_equal(rows, expected[step][0])
        np.testing.assert_array_equal(views, expected[step][1])
    jumping = make()
    for step in (30, 2, 29):
        np.testing.assert_array_equal(jumping.batch(step)[0], expected[step][0])


def test_epochs_and_seeds_differ() -> None:
    order = Order(np.arange(64), 64, seed=0)
    assert (order.batch(0)[0] != order.batch(1)[0]).any()
    assert (order.batch(0)[0] != Order(np.arange(64), 64, seed=1).batch(0)[0]).any()


def test_the_rows_that_are_left_out_change_from_epoch_to_epoch() -> None:
    order = Order(np.arange(10), 8, seed=0)
    left_out = {frozenset(set(range(10)) - set(order.batch(epoch)[0].tolist())) for epoch in range(20)}
    assert len(left_out) > 5


def test_the_view_number_is_the_epoch_plus_one_modulo_count() -> None:
    order = Order(np.arange(10), 5, seed=0, views=ShiftFlip(count=3))
    assert [set(order.batch(step)[1].tolist()) for step in range(8)] == [{1}, {1}, {2}, {2}, {3}, {3}, {1}, {1}]
    assert set(Order(np.arange(10), 5, seed=0).batch(9)[1].tolist()) == {0}


def test_length_bucketing_pads_little_and_still_mixes_the_lengths_over_time() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 4000)
    rows = np.arange(4000)

    def padding(order: Order) -> float:
        batches = [lengths[order.batch(step)[0]] for step in range(order.steps_per_epoch)]
        return 1 - sum(b.sum() for b in batches) / sum(b.max() * len(b) for b in batches)

    sorted_order = Order(rows, 32, seed=0, lengths=lengths)
    assert padding(sorted_order) < 0.15
    assert padding(Order(rows, 32, seed=0)) > 0.5
    means = [lengths[sorted_order.batch(step)[0]].mean() for step in range(sorted_order.steps_per_epoch)]
    # A sorted epoch would have a correlation of 1 between step and length.
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.3


def test_each_batch_has_its_share_of_labelled_rows_and_unlabelled_ones_come_once_an_epoch() -> None:
    rows, labelled = np.arange(1000), np.arange(0, 1000, 50)
    order = Order(rows, 32, seed=0, labelled=labelled, labelled_share=0.25)
    batches = [order.batch(step)[0] for step in range(order.steps_per_epoch)]
    assert {int(np.isin(batch, labelled).sum()) for batch in batches} == {8}
    unlabelled = np.concatenate(batches)
    unlabelled = unlabelled[~np.isin(unlabelled, labelled)]
    assert len(unlabelled) == len(set(unlabelled.tolist())) == 980 // 24 * 24
    # 20 labelled rows, 8 a batch: after 5 steps each has come exactly twice.
    drawn = np.concatenate([batch[np.isin(batch, labelled)] for batch in batches[:5]])
    assert set(np.bincount(drawn, minlength=1000)[labelled].tolist()) == {2}


def test_lengths_are_those_of_the_unlabelled_rows_when_labelled_ones_have_a_stream_of_their_own() -> None:
    lengths = np.random.default_rng(0).geometric(0.05, 4000)
    labelled = np.arange(1000)
    order = Order(np.arange(4000), 32, seed=0, lengths=lengths, labelled=labelled, labelled_share=0.25)
    batches = [order.batch(step)[0] for step in range(order.steps_per_epoch)]
    unlabelled = [lengths[batch[~np.isin(batch, labelled)]] for batch in batches]
    assert 1 - sum(b.sum() for b in unlabelled) / sum(b.max() * len(b) for b in unlabelled) < 0.15


def test_labelled_rows_count_their_own_epochs_in_view_numbers() -> None:
    rows, labelled = np.arange(100), np.arange(4)
    order = Order(rows, 8, seed=0, labelled=labelled, labelled_share=0.5, views=ShiftFlip())
    for step in (0, 1, 7):
        found, views = order.batch(step)
        known = np.isin(found, labelled)
        assert set(views[known].tolist()) == {step + 1}
        assert set(views[~known].tolist()) == {1}


def test_a_share_of_one_trains_on_labelled_rows_alone() -> None:
    order = Order(np.arange(100), 8, seed=0, labelled=np.arange(16), labelled_share=1.0)
    assert order.steps_per_epoch == 2
    assert sorted(np.concatenate([order.batch(0)[0], order.batch(1)[0]]).tolist()) == list(range(16))


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    order = Order(np.arange(5), 64, seed=0)
    assert order.steps_per_epoch == 1
    assert sorted(order.batch(3)[0].tolist()) == [0, 1, 2, 3, 4]


def test_orders_that_cannot_be_are_refused() -> None:
    rows = np.arange(10)
    with pytest.raises(DataError, match="no labelled ones"):
        Order(rows, 4, seed=0, labelled=rows[:0], labelled_share=0.5)
    with pytest.raises(DataError, match="no unlabelled ones"):
        Order(rows, 4, seed=0, labelled=rows, labelled_share=0.5)
    with pytest.raises(DataError, match="training rows"):
        Order(rows[:0], 4, seed=0)
    with pytest.raises(RecipeError, match="batch_size"):
        Order(rows, 0, seed=0)
    with pytest.raises(RecipeError, match="labelled_share"):
        Order(rows, 4, seed=0, labelled=rows[:2], labelled_share=1.5)


def test_evaluation_results_come_back_in_the_order_of_the_rows() -> None:
    values = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    data = Data(source=Arrays(values), splits=Splits(test=0.3)).load()
    rows = data.rows("train")[::-1]
    found = in_original_order((at, batch.inputs * 2) for at, batch in evaluation_batches(data, rows, 7))
    torch.testing.assert_close(found, torch.from_numpy(values[rows]) * 2)
    parts = [(np.array([2, 0]), torch.tensor([[20.0], [0.0]])), (np.array([1]), torch.tensor([[10.0]]))]
    assert in_original_order(parts).tolist() == [[0.0], [10.0], [20.0]]
    lengths = np.array([3, 9, 1, 7])
    assert [part.tolist() for part in by_length(4, 3, lengths)] == [[1, 3, 0], [2]]


def test_the_order_of_a_transfer_set_has_its_rows_labels_and_views() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4), dtype=np.uint8)
    data = Data(source=Arrays(pixels, np.arange(300) % 3), labelled=30, labelled_share=0.5, views=ShiftFlip(1)).load()
    rows, views = data.order(8, seed=0).batch(0)
    assert set(rows.tolist()) <= set(data.rows("train").tolist())
    assert np.isin(rows, data.labelled_rows).sum() == 4
    assert set(views.tolist()) == {1}
