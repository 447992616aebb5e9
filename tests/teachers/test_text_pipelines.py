"""scikit-learn pipelines that read texts: a vectorizer gets them as they are, and the answers are the library's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tables import facts

from tutelage.described import describe
from tutelage.errors import ModelError
from tutelage.recipe_file import load_recipe
from tutelage.signals import Request
from tutelage.teachers import SklearnTeacher
from tutelage.transfer import Data, Splits, Table, Tabular, Text, TransferSet

CPU = torch.device("cpu")
N = 120


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = np.array(["Good", "bad", "film", "plot", "naïve", "It's", "007", "nan"])
    reviews = [" ".join(rng.choice(words, 5)) for _ in range(N)]
    stars = rng.normal(size=N)
    y = ["good" if ("Good" in text) ^ (star > 1) else "bad" for text, star in zip(reviews, stars, strict=True)]
    table = pd.DataFrame({"stars": stars, "review": reviews, "kind": rng.choice(["dvd", "book"], N), "label": y})
    table.loc[3, "review"] = "?"
    table.loc[::7, "kind"] = None
    return table


def texts() -> dict[str, Callable[[], Any]]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline, make_union

    def tfidf() -> Any:
        return make_pipeline(TfidfVectorizer(), LogisticRegression())

    return {
        "tf-idf": tfidf,
        "counts": lambda: make_pipeline(CountVectorizer(lowercase=False), TfidfTransformer(), MultinomialNB()),
        "hashes": lambda: make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()),
        "union": lambda: make_pipeline(
            make_union(TfidfVectorizer(), CountVectorizer(analyzer="char", ngram_range=(1, 2))), LogisticRegression()
        ),
        "searched": lambda: GridSearchCV(tfidf(), {"logisticregression__C": [0.5, 2.0]}, cv=2),
        "calibrated": lambda: CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), RidgeClassifier()), cv=2),
    }


def columns() -> dict[str, Callable[[], Any]]:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def model(vectorizer: Any, review: Any, kind: Any, stars: Any) -> Any:
        kinds = OneHotEncoder(handle_unknown="ignore")
        parts = [("t", vectorizer, review), ("k", kinds, kind), ("s", "passthrough", stars)]
        return make_pipeline(ColumnTransformer(parts), LogisticRegression())

    return {
        "by name": lambda: model(TfidfVectorizer(), "review", ["kind"], ["stars"]),
        "by number": lambda: model(CountVectorizer(), 1, [2], [0]),
        "steps": lambda: model(make_pipeline(CountVectorizer(), "passthrough"), "review", ["kind"], ["stars"]),
    }


def data_of(table: pd.DataFrame, folder: Path, kind: str = "parquet", **roles: Any) -> TransferSet:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)
    roles = {"text": "review", "label": "label"} | roles
    tabular = Tabular() if "inputs" in roles else None
    source = Table(str(path), **roles)
    split = Splits(development=0, test=0)
    return Data(source=source, tabular=tabular, splits=split, text=Text(tokenizer=tokenizer(folder))).load()


def tokenizer(folder: Path) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(str(folder / "tokenizer"))
    return str(folder / "tokenizer")


def asked(teacher: SklearnTeacher, data: TransferSet) -> np.ndarray:
    teacher.load(CPU)
    teacher.meet(facts(data))
    output = teacher.ask(data.batch(np.arange(N)), Request(output=True)).output
    assert output is not None
    return output.double().softmax(1).numpy()


def stored(model: Any, folder: Path, **more: Any) -> SklearnTeacher:
    from skops import io as skops_io

    skops_io.dump(model, folder / "m.skops")
    return SklearnTeacher(
        str(folder / "m.skops"), trusted=skops_io.get_untrusted_types(file=folder / "m.skops"), **more
    )


def says(model: Any, rows: Any) -> np.ndarray:
    return model.predict_proba(rows)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "parquet") for name in texts()), ("tf-idf", "csv"), ("tf-idf", "jsonl")]
)
def test_a_pipeline_that_begins_with_a_vectorizer_reads_the_texts_as_they_are(
    name: str, kind: str, tmp_path: Path
) -> None:
    """Catches a table in the place of texts: a vectorizer would read the name of the column, or lists of one."""
    table = frame()
    model = texts()[name]().fit(table["review"], table["label"])
    expected = says(model, table["review"])
    assert expected[:, 1].std() > 0.05
    np.testing.assert_allclose(asked(stored(model, tmp_path), data_of(table, tmp_path, kind)), expected, atol=1e-6)
    if (name, kind) == ("tf-idf", "parquet"):  # with further columns, the one that is named
        data = data_of(table, tmp_path, inputs=["stars"], categories=["kind"])
        np.testing.assert_allclose(asked(stored(model, tmp_path, columns=["review"]), data), expected, atol=1e-6)
        with pytest.raises(ModelError, match=r"expected: 1, as(.|\n)*teacher\.columns"):
            asked(stored(model, tmp_path), data)
        with pytest.raises(ModelError, match=r"column `stars`(.|\n)*a text in every row"):
            asked(stored(model, tmp_path, columns=["stars"]), data)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "parquet") for name in columns()), ("by name", "csv"), ("steps", "jsonl")]
)
def test_a_vectorizer_among_other_columns_reads_its_own(name: str, kind: str, tmp_path: Path) -> None:
    table = frame()
    order = ["stars", "review", "kind"]
    model = columns()[name]().fit(table[order], table["label"])
    expected = says(model, table[order])
    data = data_of(table, tmp_path, kind, inputs=["stars"], categories=["kind"])
    np.testing.assert_allclose(asked(stored(model, tmp_path), data), expected, atol=1e-6)


def spec(steps: list[Any]) -> dict[str, Any]:
    return part("pipeline.Pipeline", steps=[*steps, ["model", part("linear_model.LogisticRegression")]])


def part(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"sklearn.{name}", "init_args": arguments}


def test_text_pipelines_are_fitted_in_the_run_as_the_library_fits_them(tmp_path: Path) -> None:
    table = frame()
    vectorizer = part("feature_extraction.text.TfidfVectorizer", sublinear_tf=True)
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    alone = SklearnTeacher(str(tmp_path / "a.skops"), estimator=spec([["t", vectorizer]]))
    by_hand = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression()).fit(
        table["review"], table["label"]
    )
    np.testing.assert_allclose(asked(alone, data_of(table, tmp_path)), says(by_hand, table["review"]), atol=1e-6)
    mixed = part(
        "compose.ColumnTransformer", transformers=[["t", vectorizer, "review"], ["s", "passthrough", ["stars"]]]
    )
    both = SklearnTeacher(str(tmp_path / "b.skops"), estimator=spec([["columns", mixed]]))
    order = ["stars", "review"]
    by_hand = make_pipeline(
        ColumnTransformer([("t", TfidfVectorizer(sublinear_tf=True), "review"), ("s", "passthrough", ["stars"])]),
        LogisticRegression(),
    ).fit(table[order], table["label"])
    data = data_of(table, tmp_path, inputs=["stars"])
    np.testing.assert_allclose(asked(both, data), says(by_hand, table[order]), atol=1e-6)
    with pytest.raises(ModelError, match=r"teacher\.columns(.|\n)*one column, of texts(.|\n)*columns: \[review\]"):
        asked(SklearnTeacher(str(tmp_path / "c.skops"), estimator=spec([["t", vectorizer]])), data)


def test_a_recipe_names_a_pipeline_whose_steps_are_estimators(tmp_path: Path) -> None:
    """Catches steps that are made where the recipe is read: a file fitted with others would not be refused."""
    estimator = spec([["t", part("feature_extraction.text.TfidfVectorizer", sublinear_tf=True)]])
    teacher = {"class_path": "SklearnTeacher", "init_args": {"path": "t.skops", "estimator": estimator}}
    student = {"class_path": "ModuleStudent", "init_args": {"module": {"class_path": "torch.nn.Linear"}}}
    student["init_args"]["module"]["init_args"] = {"in_features": 2, "out_features": 2}  # type: ignore[index]
    recipe = {
        "name": "t",
        "task": "classification",
        "data": {"source": {"class_path": "Table", "init_args": {"path": "t.csv", "text": "review", "label": "y"}}},
        "student": student,
        "losses": [{"class_path": "KLDivergence"}],
        "training": {"steps": 1},
    }
    pair = {"class_path": "Ensemble", "init_args": {"members": [teacher, teacher]}}
    for form in (teacher, pair):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"teacher": form}))
        read = load_recipe(tmp_path / "r.yaml").teacher
        found = read.members[0] if form is pair else read  # type: ignore[union-attr]
        assert isinstance(found, SklearnTeacher)
        assert found.estimator == estimator and found.arguments() == {"estimator": estimator, "fit": {}}
        assert describe(found)["init_args"]["estimator"] == estimator


def test_a_missing_text_is_refused_as_the_library_refuses_it(tmp_path: Path) -> None:
    """Catches a missing text that is read as the text "None"."""
    table = frame()
    model = columns()["by name"]().fit(table[["stars", "review", "kind"]], table["label"])
    gone = table.assign(review=table["review"].where(table.index != 5))
    with pytest.raises(ValueError, match="invalid document"):
        model.predict_proba(gone)
    data = data_of(table, tmp_path, inputs=["stars"], categories=["kind"])
    teacher = stored(model, tmp_path)
    asked(teacher, data)
    batch = data.batch(np.arange(N))
    assert batch.raw is not None
    raw = batch.raw() | {"review": gone["review"].astype(object).where(gone["review"].notna(), None).to_numpy()}
    with pytest.raises(
        ModelError, match=r"column `review`(.|\n)*a text in every row(.|\n)*nothing \(in 1 of 120 rows\)"
    ):
        teacher.ask(replace(batch, raw=lambda: raw), Request(output=True))


def test_a_text_pipeline_is_timed_as_it_is_asked(tmp_path: Path) -> None:
    table = frame()
    model = texts()["tf-idf"]().fit(table["review"], table["label"])
    data = data_of(table, tmp_path)
    teacher = stored(model, tmp_path)
    asked(teacher, data)
    served = teacher.served()
    assert served.reads == {"raw"}
    output = served.open(1)(data.batch(np.arange(8))).output
    assert output is not None
    np.testing.assert_allclose(output.double().softmax(1).numpy(), says(model, table["review"][:8]), atol=1e-6)
