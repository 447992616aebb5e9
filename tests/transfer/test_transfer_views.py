from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, Images, ShiftFlip

M = 2**64


def splitmix(z: int) -> int:
    """SplitMix64 in Python's own integers."""
    z = (z + 0x9E3779B97F4A7C15) % M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % M
    return z ^ (z >> 31)


def brute_force(image: np.ndarray, row: int, view: int, *, shift: int, flip: bool, seed: int) -> np.ndarray:
    """One image [C, H, W], pixel by pixel, from the description in the docstring of ShiftFlip."""
    if view == 0:
        return image.copy()
    h = splitmix((splitmix((splitmix(seed % M) + row) % M) + view) % M)
    down = splitmix(h) % (2 * shift + 1) - shift
    right = splitmix((h + 1) % M) % (2 * shift + 1) - shift
    mirror = flip and splitmix((h + 2) % M) >> 63 == 1
    out = np.zeros_like(image)
    C, H, W = image.shape
    for c in range(C):
        for y in range(H):
            for x in range(W):
                if 0 <= y - down < H and 0 <= x - right < W:
                    source = x - right
                    out[c, y, x] = image[c, y - down, W - 1 - source if mirror else source]
    return out


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    shift=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(-5, 2**40),
    pairs=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 5)), min_size=1, max_size=6),
)
def test_views_are_those_of_a_pixel_by_pixel_implementation(
    shape: tuple[int, int, int], shift: int, flip: bool, seed: int, pairs: list[tuple[int, int]]
) -> None:
    images = np.random.default_rng(0).random((len(pairs), *shape), dtype=np.float32)
    rows, views = np.array(pairs).T
    found = ShiftFlip(shift, flip, seed=seed).apply(torch.from_numpy(images), rows, views)
    for i, (row, view) in enumerate(pairs):
        expected = brute_force(images[i], row, view, shift=shift, flip=flip, seed=seed)
        np.testing.assert_array_equal(found[i].numpy(), expected)


@pytest.fixture
def data():
    pixels = np.random.default_rng(1).integers(0, 256, (200, 9, 9), dtype=np.uint8)
    images = Images(mean=[0.3], std=[0.2])
    return Data(source=Arrays(pixels), views=ShiftFlip(2, seed=7), images=images).load()


def test_a_view_does_not_depend_on_the_batch_it_is_in_nor_on_its_order(data) -> None:
    rows = np.arange(200)
    views = 1 + rows % 3
    whole = data.batch(rows, views).inputs
    order = np.random.default_rng(2).permutation(200)
    torch.testing.assert_close(data.batch(order, views[order]).inputs, whole[order], rtol=0, atol=0)
    for row in (0, 17, 199):
        torch.testing.assert_close(data.batch([row], [views[row]]).inputs[0], whole[row], rtol=0, atol=0)


def test_view_0_is_the_row_as_it_is_and_other_views_differ(data) -> None:
    rows = np.arange(200)
    plain = data.batch(rows).inputs
    expected = (torch.from_numpy(data.columns.pictures["inputs"]).float()[:, None] / 255 - 0.3) / 0.2
    torch.testing.assert_close(plain, expected)
    moved = [(data.batch(rows, np.full(200, v)).inputs != plain).flatten(1).any(1).float().mean() for v in (1, 2)]
    assert min(moved) > 0.9


def test_what_a_shift_uncovers_is_black_before_normalisation(data) -> None:
    rows = np.arange(200)
    down, _, _ = data.views.parameters(rows, np.ones(200, dtype=int))
    row = int(np.flatnonzero(down == 2)[0])
    torch.testing.assert_close(data.batch([row], [1]).inputs[0, 0, :2], torch.full((2, 9), (0 - 0.3) / 0.2))


def test_shifts_and_mirrors_are_uniform_and_independent() -> None:
    n = 50_000
    down, right, mirror = ShiftFlip(2).parameters(np.arange(n), np.ones(n, dtype=int))
    cells = np.bincount((down + 2) * 10 + (right + 2) * 2 + mirror, minlength=50)
    expected = n / 50
    # Chi-squared with 49 degrees of freedom: 99.99% of draws are below 98.
    assert ((cells - expected) ** 2 / expected).sum() < 98


def test_count_limits_the_views_and_none_gives_a_new_one_every_epoch() -> None:
    assert [ShiftFlip(count=3).number(epoch) for epoch in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    assert [ShiftFlip().number(epoch) for epoch in range(4)] == [1, 2, 3, 4]


def test_without_flip_nothing_is_mirrored_and_apply_leaves_its_input_alone() -> None:
    rows, views = np.arange(64), np.ones(64, dtype=int)
    assert not ShiftFlip(flip=False).parameters(rows, views)[2].any()
    images = torch.rand(64, 1, 5, 5)
    kept = images.clone()
    ShiftFlip(0, flip=False).apply(images, rows, views).zero_()
    torch.testing.assert_close(images, kept, rtol=0, atol=0)


def test_it_is_fast_enough_to_be_free() -> None:
    images, rows, views = torch.rand(256, 1, 28, 28), np.arange(256), np.ones(256, dtype=int)
    view = ShiftFlip()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(20):
            start = time.process_time()
            view.apply(images, rows, views)
            times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    # Processor time of one thread, so that a busy machine does not matter: about 0.5 ms; a loop over pixels takes 100.
    assert min(times) < 5e-3


def test_wrong_settings_and_inputs_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"views\.shift"):
        ShiftFlip(-1)
    with pytest.raises(RecipeError, match=r"views\.count"):
        ShiftFlip(count=0)
    with pytest.raises(DataError, match="images"):
        ShiftFlip().apply(torch.zeros(2, 5), np.zeros(2, int), np.ones(2, int))
    with pytest.raises(RecipeError, match=r"data\.views"):
        Data(source=Arrays({"a": np.zeros((9, 2)), "b": np.zeros((9, 2))}), views=ShiftFlip()).load()
    with pytest.raises(DataError, match="images"):
        Data(source=Arrays(np.zeros((90, 5))), views=ShiftFlip()).load()


def test_raw_columns_are_those_of_the_source_without_views() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(20, 6, 6), dtype=np.uint8)
    data = Data(source=Arrays(pixels), views=ShiftFlip(2)).load()
    rows = np.array([7, 3])
    batch = data.batch(rows, np.array([5, 6]))
    assert batch.raw is not None
    np.testing.assert_array_equal(next(iter(batch.raw().values())), pixels[rows])
    assert batch.to(torch.device("cpu")).raw is batch.raw
