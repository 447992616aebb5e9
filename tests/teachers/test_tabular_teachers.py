"""Models of tables: all libraries go through the same tests.

Longer than 400 lines because each test runs on the models of every library, and their makers stand beside them.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from tables import CATEGORIES, CLASSES, NUMBERS, N, facts, frame, loaded, pandas_rows

from tutelage.errors import MissingExtra, ModelError
from tutelage.signals import Request
from tutelage.teachers import CatBoostTeacher, LightGBMTeacher, SklearnTeacher, TabularTeacher, XGBoostTeacher
from tutelage.teachers.gives import log_of_probabilities
from tutelage.teachers.tabular import log_of_margins
from tutelage.transfer import Arrays, Data, TransferSet

CPU = torch.device("cpu")
ALL = np.arange(N)
HGB = "sklearn.ensemble.HistGradientBoostingClassifier"
TREE = ["sklearn.tree._tree.Tree"]
TRUSTED = [
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    "numpy.dtype",
]
SKLEARN = functools.partial(SklearnTeacher, trusted=TRUSTED)


def answers(teacher: TabularTeacher, data: TransferSet, rows: np.ndarray = ALL) -> np.ndarray:
    teacher.load(CPU)
    teacher.meet(facts(data))
    said = teacher.ask(data.batch(rows), Request(output=True)).output
    assert said is not None and said.dtype == torch.float32
    return said.numpy()


def labels(classes: int) -> np.ndarray:
    return np.array([CLASSES[classes].index(name) for name in frame(classes)["label"]])


def lightgbm_file(path: Path, classes: int) -> np.ndarray:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=12, verbosity=-1, n_jobs=1)
    model.fit(pandas_rows(classes), labels(classes)).booster_.save_model(str(path))
    return model.predict_proba(pandas_rows(classes))


def xgboost_file(path: Path, classes: int) -> np.ndarray:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=12, enable_categorical=True, n_jobs=1, early_stopping_rounds=2)
    rows, y = pandas_rows(classes), labels(classes)
    wrong = np.random.default_rng(0).permutation(y)[:60]  # so that it stops early
    model.fit(rows, y, eval_set=[(rows[:60], wrong)], verbose=False).save_model(path)
    assert model.best_iteration < 9
    return model.predict_proba(rows)


def filled(classes: int) -> pd.DataFrame:
    rows = frame(classes)[NUMBERS + CATEGORIES].copy()
    for name in CATEGORIES:
        rows[name] = rows[name].astype(object).where(rows[name].notna(), "missing")
    return rows


def catboost_file(path: Path, classes: int) -> np.ndarray:
    import catboost

    model = catboost.CatBoostClassifier(iterations=12, verbose=False, allow_writing_files=False, thread_count=1)
    model.fit(filled(classes), frame(classes)["label"], cat_features=CATEGORIES).save_model(str(path))
    return model.predict_proba(filled(classes))


def sklearn_file(path: Path, classes: int) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from skops import io as skops_io

    model = HistGradientBoostingClassifier(max_iter=12).fit(pandas_rows(classes), frame(classes)["label"])
    skops_io.dump(model, path)
    return model.predict_proba(pandas_rows(classes))


READY: dict[str, tuple[Callable[..., TabularTeacher], str, Callable[[Path, int], np.ndarray]]] = {
    "lightgbm": (LightGBMTeacher, "m.txt", lightgbm_file),
    "xgboost ubj": (XGBoostTeacher, "m.ubj", xgboost_file),
    "xgboost json": (XGBoostTeacher, "m.json", xgboost_file),
    "catboost": (CatBoostTeacher, "m.cbm", catboost_file),
    "scikit-learn": (SKLEARN, "m.skops", sklearn_file),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", READY)
def test_answers_are_the_librarys_own_for_rows_with_missing_cells_and_categories(
    name: str, classes: int, tmp_path: Path
) -> None:
    kind, file, make = READY[name]
    expected = make(tmp_path / file, classes)
    for suffix in ("parquet", "csv"):  # a CSV file has no types of its own
        found = answers(kind(str(tmp_path / file)), loaded(tmp_path, suffix, classes=classes))
        assert found.shape == (N, classes)
        np.testing.assert_allclose(np.exp(found), expected, atol=2e-6)
    alone = answers(kind(str(tmp_path / file)), loaded(tmp_path, classes=classes), np.array([7]))
    np.testing.assert_allclose(np.exp(alone), expected[7:8], atol=2e-6)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost ubj", "catboost", "scikit-learn"])
def test_columns_are_found_by_their_names_in_whatever_order_the_data_has_them(name: str, tmp_path: Path) -> None:
    kind, file, make = READY[name]
    expected = make(tmp_path / file, 2)
    data = loaded(tmp_path, inputs=["value", "zone", "age", "kind", "size"])
    np.testing.assert_allclose(np.exp(answers(kind(str(tmp_path / file)), data)), expected, atol=2e-6)
    with pytest.raises(ModelError, match=r"column `size`(.|\n)*teacher\.columns"):
        answers(kind(str(tmp_path / file)), loaded(tmp_path, inputs=["age"]))
    with pytest.raises(ModelError, match=r"expected: 4(.|\n)*found: +3"):
        answers(kind(str(tmp_path / file), columns=["size", "kind", "zone"]), data)
    with pytest.raises(ModelError, match=r"teacher\.columns(.|\n)*did you mean `size`"):
        answers(kind(str(tmp_path / file), columns=["sizes", "age", "kind", "zone"]), data)


def test_categories_that_the_model_does_not_know_are_missing_ones_and_no_error(tmp_path: Path) -> None:
    """Catches codes of the batch in the place of those of the model."""
    data = loaded(tmp_path)
    assert data.columns.features is not None
    for name, (kind, file, make) in READY.items():
        make(tmp_path / file, 2)
        teacher = kind(str(tmp_path / file))
        teacher.load(CPU)
        teacher.meet(facts(data))
        batch = data.batch(np.array([1, 2, 3]))
        assert batch.raw is not None
        known = batch.raw()

        def ask(cells: list[Any], known: Any = known, teacher: Any = teacher, batch: Any = batch) -> np.ndarray:
            changed = known | {"kind": np.array(cells, dtype=object)}
            said = teacher.ask(batch.__class__(**{**vars(batch), "raw": lambda: changed}), Request(output=True)).output
            return said.numpy()

        assert np.isfinite(ask(["eel", "cow", "cow"])).all()
        if name != "catboost":  # which has an answer of its own for new categories
            np.testing.assert_array_equal(ask(["eel", "cow", "cow"]), ask([None, "cow", "cow"]), err_msg=name)


VALUES: dict[str, Callable[[str], TabularTeacher]] = {
    "lightgbm": lambda path: LightGBMTeacher(path, fit={"num_iterations": 10, "num_threads": 1}, threads=1),
    "xgboost": lambda path: XGBoostTeacher(path, fit={"num_boost_round": 10, "nthread": 1}),
    "catboost": lambda path: CatBoostTeacher(path, fit={"iterations": 10, "learning_rate": 0.3}),
    "scikit-learn": lambda path: SklearnTeacher(
        path,
        estimator={"class_path": "sklearn.tree.DecisionTreeRegressor", "init_args": {"max_depth": 3}},
        trusted=TREE,
    ),
}
NAMES = {"lightgbm": "t.txt", "xgboost": "t.json", "catboost": "t.cbm", "scikit-learn": "t.skops"}


def own_answers(name: str, path: Path) -> Any:
    """What the library makes of the file by itself, as a function of a matrix."""
    if name == "lightgbm":
        import lightgbm

        return lightgbm.Booster(model_file=str(path)).predict
    if name == "xgboost":
        import xgboost

        model = xgboost.Booster(model_file=str(path))
        return lambda x: model.predict(xgboost.DMatrix(x, feature_names=model.feature_names))
    if name == "catboost":
        import catboost

        return catboost.CatBoost().load_model(str(path)).predict
    from skops import io as skops_io

    return lambda x: skops_io.load(path, trusted=TREE).predict(pd.DataFrame(x, columns=["age", "size"]))


@pytest.mark.parametrize("label", ["value", ["value", "other"]])
@pytest.mark.parametrize("name", VALUES)
def test_regressors_are_fitted_in_the_run_and_answer_with_values(name: str, label: Any, tmp_path: Path) -> None:
    path = tmp_path / "sub" / NAMES[name]
    data = loaded(tmp_path, label=label, inputs=["age", "size"], categories=[])
    teacher = VALUES[name](str(path))
    if name == "lightgbm" and label != "value":
        with pytest.raises(ModelError, match="one label a row"):
            answers(teacher, data)
        return
    found = answers(teacher, data)
    assert found.shape == ((N,) if label == "value" else (N, 2))
    matrix = frame()[["age", "size"]].to_numpy(float)
    np.testing.assert_allclose(found, own_answers(name, path)(matrix), rtol=1e-5, atol=1e-6)
    truth = frame()[label].to_numpy()
    assert ((found - truth) ** 2).mean() < 0.7 * truth.var(0).mean()  # it has learnt something


def fitting(name: str, path: Path, **change: Any) -> TabularTeacher:
    if name == "lightgbm":
        return LightGBMTeacher(str(path / "t.txt"), fit={"num_iterations": 5, "num_threads": 1} | change)
    if name == "xgboost":
        return XGBoostTeacher(str(path / "t.ubj"), fit={"num_boost_round": 5, "nthread": 1} | change)
    if name == "catboost":
        return CatBoostTeacher(str(path / "t.cbm"), fit={"iterations": 5, "thread_count": 1} | change)
    arguments = {"max_iter": 5} | change
    return SKLEARN(str(path / "t.skops"), estimator={"class_path": HGB, "init_args": arguments})


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", VALUES)
def test_classifiers_are_fitted_once_kept_and_refused_for_other_rows_or_arguments(
    name: str, classes: int, tmp_path: Path
) -> None:
    data = loaded(tmp_path, classes=classes)
    teacher = fitting(name, tmp_path)
    first = answers(teacher, data)
    assert first.shape == (N, classes)
    accuracy = (first.argmax(1) == labels(classes)).mean()
    assert accuracy > 0.6
    path = Path(teacher.path)
    written, print_ = path.stat().st_mtime_ns, teacher.fingerprint()
    again = fitting(name, tmp_path)
    np.testing.assert_array_equal(answers(again, data), first)
    assert path.stat().st_mtime_ns == written and again.fingerprint() == print_
    assert sorted(file.name for file in tmp_path.glob("*t.*")) == [path.name, f"{path.name}.fit.json"]
    with pytest.raises(ModelError, match=r"fitted with .*instead(.|\n)*delete or rename"):
        answers(fitting(name, tmp_path, learning_rate=0.3), data)
    with pytest.raises(ModelError, match="other rows or labels"):
        answers(fitting(name, tmp_path), loaded(tmp_path / "other", classes=5 - classes))
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ModelError, match="not the file that was written"):
        answers(fitting(name, tmp_path), data)
    Path(f"{path}.fit.json").unlink()
    with pytest.raises(ModelError, match=r"no `t\..*fit\.json`"):
        answers(fitting(name, tmp_path), data)


def test_a_fit_uses_the_labelled_training_rows_alone(tmp_path: Path) -> None:
    """Catches a leak: a teacher that has learnt the test rows by heart."""
    from sklearn.tree import DecisionTreeRegressor

    data = loaded(tmp_path, label="value", inputs=["age", "size"], categories=[])
    teacher = SklearnTeacher(
        str(tmp_path / "t.skops"),
        estimator={"class_path": "sklearn.tree.DecisionTreeRegressor", "init_args": {"random_state": 0}},
        trusted=TREE,
    )
    rows = data.labelled_rows
    assert 0 < len(rows) < N
    matrix = frame()[["age", "size"]].to_numpy(float)
    by_hand = DecisionTreeRegressor(random_state=0).fit(matrix[rows], frame()["value"].to_numpy()[rows])
    np.testing.assert_allclose(answers(teacher, data), by_hand.predict(matrix), rtol=1e-6)
    record = json.loads((tmp_path / "t.skops.fit.json").read_text())
    assert record["count"] == len(rows) and record["columns"] == ["age", "size"]


def test_a_fit_that_is_killed_leaves_no_model_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, teacher = loaded(tmp_path), fitting("lightgbm", tmp_path)

    def half(model: Any, path: Path) -> None:
        path.write_text("tree\nhalf of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(teacher, "save", half)
        answers(teacher, data)
    assert not list(tmp_path.glob("*t.txt*"))
    assert answers(fitting("lightgbm", tmp_path), data).shape == (N, 2)


def test_a_pipeline_is_built_from_a_recipes_words(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def part(name: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": f"sklearn.{name}", "init_args": arguments}

    encoder = part("preprocessing.OneHotEncoder", handle_unknown="ignore")
    steps = part(
        "compose.ColumnTransformer",
        transformers=[["n", part("impute.SimpleImputer"), NUMBERS], ["c", encoder, CATEGORIES]],
    )
    spec = part("pipeline.Pipeline", steps=[["columns", steps], ["model", part("linear_model.LogisticRegression")]])
    data = loaded(tmp_path)
    found = answers(SKLEARN(str(tmp_path / "t.skops"), estimator=spec), data)
    rows = data.labelled_rows
    by_hand = make_pipeline(
        make_column_transformer((SimpleImputer(), NUMBERS), (OneHotEncoder(handle_unknown="ignore"), CATEGORIES)),
        LogisticRegression(),
    ).fit(pandas_rows().iloc[rows], labels(2)[rows])
    np.testing.assert_allclose(np.exp(found), by_hand.predict_proba(pandas_rows()), atol=1e-6)
    with pytest.raises(ModelError, match=r"steps\[0\]\[1\]\.class_path(.|\n)*did you mean `ColumnTransformer`"):
        spec["init_args"]["steps"][0][1]["class_path"] = "sklearn.compose.ColumnTransformr"
        SklearnTeacher("t.skops", estimator=spec).load(CPU)
    with pytest.raises(ModelError, match=r"estimator\.init_args(.|\n)*max_itr"):
        SklearnTeacher("t.skops", estimator={"class_path": HGB, "init_args": {"max_itr": 3}}).load(CPU)
    with pytest.raises(ModelError, match="`fit` without `estimator`"):
        SklearnTeacher("t.skops", fit={}).load(CPU)


def test_estimators_of_plain_arrays_read_flattened_arrays(tmp_path: Path) -> None:
    from sklearn.naive_bayes import GaussianNB
    from skops import io as skops_io

    rng = np.random.default_rng(0)
    pixels, y = rng.normal(size=(60, 2, 3)).astype(np.float32), np.arange(60) % 3
    model = GaussianNB().fit(pixels.reshape(60, 6), y)
    skops_io.dump(model, tmp_path / "m.skops")
    data = Data(source=Arrays(pixels, y)).load()
    found = answers(SklearnTeacher(str(tmp_path / "m.skops")), data, np.arange(60))
    np.testing.assert_allclose(np.exp(found), model.predict_proba(pixels.reshape(60, 6)), atol=1e-6)


def test_classes_are_brought_into_the_datas_order_and_unknown_ones_are_least_likely(tmp_path: Path) -> None:
    """Catches logits that mean other classes than the labels."""
    expected = sklearn_file(tmp_path / "m.skops", 3)
    order = ["mid", "never", "high", "low"]
    data, named = loaded(tmp_path, classes=3), loaded(tmp_path, classes=3, names=order)
    teacher = SKLEARN(str(tmp_path / "m.skops"))
    teacher.load(CPU)
    assert teacher.classes == ("high", "low", "mid")
    found = np.exp(answers(teacher, named))
    assert teacher.classes == tuple(order)
    np.testing.assert_allclose(found[:, [2, 3, 0]], expected, atol=1e-6)
    assert (found[:, 1] < 2e-7).all()
    before = SKLEARN(str(tmp_path / "m.skops"))
    answers(before, data)
    assert before.fingerprint() != teacher.fingerprint()


def _with_classes(folder: Path, order: list[str]) -> Any:
    from tutelage.transfer import Table

    return Table(
        str(folder / "rows-3.parquet"),
        NUMBERS and None,
        inputs=NUMBERS,
        categories=CATEGORIES,
        label="label",
        classes=order,
    )


def _tabular() -> Any:
    from tutelage.transfer import Tabular

    return Tabular()


def test_margins_and_probabilities_become_logits_that_softmax_turns_back() -> None:
    margins = np.array([-40.0, 0.0, 3.0, 800.0])
    sigmoid = 1 / (1 + np.exp(-np.clip(margins, -700, 700)))
    np.testing.assert_allclose(np.exp(log_of_margins(margins))[:, 1], sigmoid, rtol=1e-12)
    assert np.isfinite(log_of_margins(margins)).all()
    wide = np.random.default_rng(0).normal(size=(5, 4)) * 50
    np.testing.assert_allclose(log_of_margins(wide), torch.log_softmax(torch.from_numpy(wide), -1).numpy(), atol=1e-12)
    p = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    assert np.isfinite(log_of_probabilities(p)).all()
    np.testing.assert_allclose(np.exp(log_of_probabilities(p)), p, atol=3e-7)
    np.testing.assert_allclose(np.exp(log_of_probabilities(np.array([0.2])))[0], [0.8, 0.2], rtol=1e-12)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def torch_file(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(method: str, value: Any, folder: Path) -> bytes:
    joblib.dump(value, folder / "packed", compress=(method, 3))
    return (folder / "packed").read_bytes()


PICKLES: dict[str, Callable[[Any, Path], bytes]] = {
    **{f"protocol {n}": lambda value, _, n=n: pickle.dumps(value, n) for n in range(6)},
    "joblib": lambda value, folder: packed("zlib", value, folder),
    "joblib gzip": lambda value, folder: packed("gzip", value, folder),
    "joblib bz2": lambda value, folder: packed("bz2", value, folder),
    "joblib xz": lambda value, folder: packed("xz", value, folder),
    "joblib lzma": lambda value, folder: packed("lzma", value, folder),
    "zlib": lambda value, _: zlib.compress(pickle.dumps(value)),
    "torch": lambda value, _: torch_file(value),
}


@pytest.mark.parametrize("form", PICKLES)
def test_a_pickle_is_refused_by_its_bytes_whatever_its_name_is_and_never_run(form: str, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    data = PICKLES[form](Bomb(trace), tmp_path)
    for kind, file, say in (
        (SklearnTeacher, "m.skops", "skops.io.dump"),
        (LightGBMTeacher, "m.txt", "save_model"),
        (XGBoostTeacher, "m.json", "save_model"),
        (CatBoostTeacher, "m.cbm", "save_model"),
    ):
        (tmp_path / file).write_bytes(data)
        with pytest.raises(ModelError, match=rf"pickle(.|\n)*runs whatever code(.|\n)*{say}"):
            kind(str(tmp_path / file)).load(CPU)
    assert not trace.exists()


def test_files_of_no_known_format_and_pickles_by_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("(this is) a note")
    with pytest.raises(ModelError, match=r"begins with b'\(this'"):
        LightGBMTeacher(str(tmp_path / "m.txt")).load(CPU)
    (tmp_path / "m.pkl").write_text("nothing")
    with pytest.raises(ModelError, match="a pickle, by its name"):
        SklearnTeacher(str(tmp_path / "m.pkl")).load(CPU)
    for kind, file, head in (
        (XGBoostTeacher, "x.json", b"{}"),
        (CatBoostTeacher, "c.cbm", b"CBM1"),
        (LightGBMTeacher, "l.txt", b"tree\n"),
        (SklearnTeacher, "s.skops", b"PK"),
    ):
        (tmp_path / file).write_bytes(head)
        with pytest.raises(ModelError, match=r"teacher\.path"):
            kind(str(tmp_path / file)).load(CPU)
    with pytest.raises(ModelError, match=r"did you mean `m\.txt`"):
        LightGBMTeacher(str(tmp_path / "n.txt")).load(CPU)


def test_types_that_skops_does_not_trust_are_listed_and_may_be_named(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.tree import DecisionTreeClassifier
    from skops import io as skops_io

    pipeline = make_pipeline(FunctionTransformer(shutil.rmtree), DecisionTreeClassifier())
    skops_io.dump(pipeline, tmp_path / "m.skops")
    with pytest.raises(ModelError, match=r"rmtree(.|\n)*trusted: \[.*rmtree.*\]") as caught:
        SklearnTeacher(str(tmp_path / "m.skops")).load(CPU)
    names = skops_io.get_untrusted_types(file=tmp_path / "m.skops")
    assert all(name in str(caught.value) for name in names)
    SklearnTeacher(str(tmp_path / "m.skops"), trusted=names).load(CPU)


def test_objectives_whose_numbers_would_have_to_be_guessed_are_refused(tmp_path: Path) -> None:
    import catboost
    import lightgbm
    import xgboost

    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    quiet = {"verbosity": -1, "num_threads": 1}

    def custom(said: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
        return said - data.get_label(), np.ones_like(said)

    lightgbm.train(quiet | {"objective": custom, "num_iterations": 2}, lightgbm.Dataset(x, y)).save_model(
        str(tmp_path / "m.txt")
    )
    xgboost.train({"objective": "binary:hinge"}, xgboost.DMatrix(x, y), 2).save_model(tmp_path / "m.json")
    several = {"loss_function": "MultiLogloss", "iterations": 2, "verbose": False, "allow_writing_files": False}
    catboost.CatBoost(several).fit(x, np.stack([y, 1 - y], 1)).save_model(str(tmp_path / "m.cbm"))
    for kind, file in ((LightGBMTeacher, "m.txt"), (XGBoostTeacher, "m.json"), (CatBoostTeacher, "m.cbm")):
        with pytest.raises(ModelError, match="FunctionTeacher"):
            kind(str(tmp_path / file)).load(CPU)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost", "skops", "sklearn"])
def test_a_package_that_is_missing_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers = {"lightgbm": LightGBMTeacher, "xgboost": XGBoostTeacher, "catboost": CatBoostTeacher}
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtra, match=rf"tutelage\[{'xgboost' if name == 'xgboost' else 'trees'}\]"):
        teachers.get(name, SklearnTeacher)("m").load(CPU)


def test_the_fingerprint_changes_with_the_file_and_the_settings(tmp_path: Path) -> None:
    lightgbm_file(tmp_path / "m.txt", 2)
    catboost_file(tmp_path / "m.cbm", 2)

    def print_(teacher: TabularTeacher) -> str:
        teacher.load(CPU)
        return teacher.fingerprint()

    prints = [
        print_(LightGBMTeacher(str(tmp_path / "m.txt"))),
        print_(LightGBMTeacher(str(tmp_path / "m.txt"), columns=NUMBERS + CATEGORIES)),
        print_(CatBoostTeacher(str(tmp_path / "m.cbm"))),
        print_(CatBoostTeacher(str(tmp_path / "m.cbm"), missing_category="none")),
    ]
    assert len(set(prints)) == 4
    for kind in (LightGBMTeacher, XGBoostTeacher, CatBoostTeacher):
        with pytest.raises(ModelError, match=r"teacher\.threads(.|\n)*-5"):
            kind("m", threads=-5).load(CPU)
    assert print_(LightGBMTeacher(str(tmp_path / "m.txt"), threads=1)) == prints[0]
    (tmp_path / "m.txt").write_text((tmp_path / "m.txt").read_text().replace("shrinkage=0.1", "shrinkage=0.2"))
    assert print_(LightGBMTeacher(str(tmp_path / "m.txt"))) != prints[0]


def test_rows_without_labels_and_texts_for_a_model_of_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="labelled training rows"):
        answers(fitting("lightgbm", tmp_path), loaded(tmp_path, label=None))
    import lightgbm

    rows = frame()[["size", "age"]].assign(kind=0.0, zone=1.0)
    lightgbm.train({"verbosity": -1, "num_iterations": 2}, lightgbm.Dataset(rows, labels(2))).save_model(
        str(tmp_path / "m.txt")
    )
    with pytest.raises(ModelError, match="fitted on numbers alone"):
        answers(LightGBMTeacher(str(tmp_path / "m.txt")), loaded(tmp_path))
