from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import Arrays, Data, Function, Rows, Splits, TransferSet, split_name
from tutelage.transfer.hashing import array_digests, mixed, splitmix64, text_digests
from tutelage.transfer.splits import assign


def load(
    values: list[int], *, group: list[str] | None = None, split: list[str] | None = None, **shares: float | int
) -> TransferSet:
    inputs = np.array(values, dtype=np.float32)[:, None]
    return Data(source=Arrays(inputs, group=group, split=split), splits=Splits(**shares)).load()  # type: ignore[arg-type]


def parts(data: TransferSet) -> dict[str, set[int]]:
    return {name: set(np.flatnonzero(data.codes == code).tolist()) for code, name in enumerate(data.sizes)}


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers(0, 40), min_size=30, max_size=120),
    seed=st.integers(0, 10),
    given_split=st.lists(st.sampled_from(["train", "development", "test", ""]), min_size=120, max_size=120),
    groups=st.lists(st.integers(0, 25), min_size=120, max_size=120),
    use=st.sampled_from(["content", "group", "split", "group and split"]),
)
def test_no_content_and_no_group_ever_stands_in_two_splits(
    values: list[int], seed: int, given_split: list[str], groups: list[int], use: str
) -> None:
    n = len(values)
    group = [str(g) if g else "" for g in groups[:n]] if "group" in use else None
    split = given_split[:n] if "split" in use else None
    try:
        data = load(values, group=group, split=split, development=0.3, test=0.3, seed=seed)
    except DataError as error:
        assert "at least one row" in str(error)
        return
    found = parts(data)
    for a, b in (("train", "development"), ("train", "test"), ("development", "test")):
        assert not {values[r] for r in found[a]} & {values[r] for r in found[b]}
        if group is not None:
            assert not {group[r] for r in found[a] if group[r]} & {group[r] for r in found[b] if group[r]}
    if split is not None and "test" in split:
        # The test split that a source gives is never touched: results stay comparable with those of others.
        assert found["test"] == {r for r in range(n) if split[r] == "test"}


def test_groups_are_drawn_whole_so_that_nothing_has_to_be_dropped() -> None:
    group = [f"article {i // 7}" for i in range(700)]
    data = load(list(range(700)), group=group, development=0.2, test=0.2)
    assert sum(data.sizes.values()) == 700
    assert data.notes == []
    assert all(len(set(data.codes[start : start + 7].tolist())) == 1 for start in range(0, 700, 7))


def test_a_row_that_also_stands_in_test_is_dropped_and_counted() -> None:
    values = [*range(100), 3, 4, 5, *range(200, 300)]
    split = [""] * 100 + ["test"] * 103
    data = load(values, split=split, development=0.2)
    assert data.sizes["test"] == 103
    assert not {3, 4, 5} & set(data.rows("train").tolist()) | {3, 4, 5} & set(data.rows("development").tolist())
    assert sum(data.sizes.values()) == 203 - 3
    assert any("dropped: they also stand in test" in note for note in data.notes)
    assert sum(int(note.split(" of ")[0]) for note in data.notes) == 3


def test_a_text_that_differs_only_in_case_and_spacing_does_not_leak() -> None:
    digests = text_digests(["Ａ  Cat", "a cat"])
    assert (digests[0] != digests[1]).any()
    texts = {f"Sentence number {i}" for i in range(60)}
    rows = Rows(
        columns={"text": [*sorted(texts), *(t.upper() + " " for t in sorted(texts)[:7])]},
        split=[""] * 60 + ["test"] * 7,
    )
    from tutelage.transfer.columns import Columns
    from tutelage.transfer.splits import assign

    content, exact = Columns(rows.columns).digests()
    codes, notes = assign(content, None, rows.split, Splits(development=0.2))
    assert len(set(exact.tolist())) == 67
    assert (codes == -1).sum() == 7
    assert notes


def test_shares_are_met_and_a_seed_draws_another_split() -> None:
    values = list(range(20_000))
    a, b = load(values, development=0.1, test=0.2), load(values, development=0.1, test=0.2, seed=1)
    # 4 standard deviations of a binomial share of 20,000 rows.
    assert abs(a.sizes["test"] / 20_000 - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 20_000)
    assert abs(a.sizes["development"] / 20_000 - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 20_000)
    both = len(np.intersect1d(a.rows("test"), b.rows("test")))
    assert abs(both / 20_000 - 0.04) < 0.01


def test_rows_do_not_move_when_others_are_added_or_reordered() -> None:
    few, many = load(list(range(500))), load(list(range(999, -1, -1)))
    test = {999 - r for r in many.rows("test")}
    assert set(few.rows("test").tolist()) == {value for value in test if value < 500}


def test_what_the_source_lacks_is_drawn_from_open_rows_and_else_from_training_rows() -> None:
    values = list(range(400))
    from_train = load(values, split=["train"] * 300 + ["test"] * 100)
    assert set(from_train.rows("development").tolist()) <= set(range(300))
    assert from_train.sizes["test"] == 100
    assert from_train.sizes["development"] > 0
    from_open = load(values, split=["train"] * 200 + [""] * 200)
    drawn = np.concatenate([from_open.rows("test"), from_open.rows("development")])
    assert drawn.min() >= 200
    complete = load(values, split=["train"] * 200 + ["development"] * 100 + ["test"] * 100)
    assert complete.sizes == {"train": 200, "development": 100, "test": 100}


def test_an_empty_split_that_is_needed_is_refused_and_one_that_is_not_is_refused_when_read() -> None:
    with pytest.raises(DataError, match=r"splits: (train|development|test)"):
        load([1, 1, 1, 1])
    data = load(list(range(100)), development=0.0, test=0.2)
    assert data.sizes["development"] == 0
    with pytest.raises(DataError, match=r"set data\.splits\.development above 0"):
        data.rows("development")


@pytest.mark.parametrize("shares", [{"test": -0.1}, {"development": 1.0}, {"development": 0.5, "test": 0.5}])
def test_impossible_shares_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=r"data\.splits"):
        Splits(**shares)  # type: ignore[arg-type]


def test_split_names_of_other_libraries_are_understood_and_misspelt_ones_refused() -> None:
    assert [split_name(w, "k") for w in ("Train", "validation", "val", "dev", "TEST", "", None)] == [
        "train",
        "development",
        "development",
        "development",
        "test",
        "",
        "",
    ]
    with pytest.raises(DataError, match="did you mean `test`"):
        split_name("tset", "k")


def test_a_digest_is_blake2b_of_the_bytes_of_the_row() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 2, 2) - 5
    for row, digest in zip(array, array_digests(array), strict=True):
        expected = hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
        assert digest.astype("<u8").tobytes() == expected
    assert (array_digests(np.array([[0.0], [-0.0]])) == array_digests(np.array([[0.0], [0.0]]))).all()
    assert (array_digests(array.transpose(0, 2, 1)) == array_digests(array.transpose(0, 2, 1).copy())).all()


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs for seed 1234567 as printed by the reference implementation (Rosetta Code, "SplitMix64").
    states = np.uint64(1234567) + np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_the_order_of_keys_matters() -> None:
    one, two = np.array([1]), np.array([2])
    assert mixed(0, one, two) != mixed(0, two, one)
    assert mixed(0, one) != mixed(1, one)


def rows_of_wrong_split() -> Rows:
    return Rows(columns={"x": np.zeros((2, 1), np.float32)}, split=["train", "validation"])


def test_a_source_of_ones_own_must_use_the_words_of_rows() -> None:
    with pytest.raises(DataError, match="split, row 1"):
        Data(source=Function(f"{__name__}:rows_of_wrong_split")).load()


def test_at_most_so_many_rows_of_a_group_judge_and_what_is_dropped_is_not_learnt_from() -> None:
    sizes = [3, 40, 7, 25, 60, 2, 12, 30, 9, 50]
    group = np.repeat(np.arange(10, dtype=np.uint64), sizes)
    content = np.random.default_rng(0).permutation(len(group)).astype(np.uint64)
    shares = {"development": 0.3, "test": 0.4, "seed": 5}
    whole, _ = assign(content, group, None, Splits(**shares))
    kept, notes = assign(content, group, None, Splits(per_group=10, **shares))
    assert ((kept == whole) | (kept == -1)).all() and (kept[whole == 0] == 0).all()
    for code in (1, 2):
        judged = set(group[whole == code].tolist())
        assert len(judged) > 1
        assert {g: int(((kept == code) & (group == g)).sum()) for g in judged} == {g: min(sizes[g], 10) for g in judged}
    said = f"{(kept == 2).sum()} of {(whole == 2).sum()} test rows used: at most 10 of each of"
    assert any(note.startswith(said) for note in notes)
    fewer, _ = assign(content, group, None, Splits(per_group=5, **shares))
    assert (kept[fewer > 0] == fewer[fewer > 0]).all(), "a smaller number keeps a part of the same rows"
    alone, _ = assign(content, None, None, Splits(per_group=1, **shares))
    assert (alone >= 0).all(), "without groups nothing is dropped"


def test_no_row_of_a_group_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"per_group"):
        Splits(per_group=0)
