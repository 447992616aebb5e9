"""Inputs as newcomers brought them (`inputs/`), each with what `doctor` answers: its value, or the words that mend it."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli import main
from tutelage.paths import look_beside
from tutelage.pipeline import distill
from tutelage.recipe_file import load_recipe

HERE = Path(__file__).parent / "inputs"
WINE, LABELS, TABLES = "wine/recipe", "labels/recipe", "tables/recipe"
PATH, CLASSES = "--data.source.init_args.path", "--data.source.init_args.classes"
STUDENT = "--student.init_args.module.class_path"
THREE = [f"--{model}.init_args.module.init_args.classes=3" for model in ("teacher", "student")]
RIGHT = r"about (9\d|100)\.\d% right"
Change = tuple[str, str]
Case = tuple[str, str, Change, list[str], int, str]

CASES: list[Case] = [
    # name, recipe, what is changed in its text, options, exit status, what is said
    ("wine", WINE, ("", ""), [], 0, RIGHT),
    ("a1: classes in another order", WINE, ("teacher.s", "teacher_perm.s"), [], 2, r"classes: \[class_2, class_0, cla"),
    ("a2: a teacher ends in softmax", WINE, ("Net, init_args: {inputs: 13, hidden: 128", "SoftNet, init_args: {inputs: 13, hidden: 128"), [], 2, "write `gives: probabilities`"),
    ("a student ends in softmax", WINE, ("", ""), [STUDENT, "input_nets.SoftNet"], 2, "softmax"),
    ("a3: labels with a fraction", WINE, ("wine.csv", "floatlabel.csv"), [], 2, "the task is regression"),
    ("a4: semicolons", WINE, ("wine.csv", "semi.csv"), [], 2, r'delimiter: ";" in data\.source'),
    ("a4, as told", WINE, ("path: wine.csv", 'path: semi.csv\n      delimiter: ";"'), [], 0, RIGHT),
    ("a5: a byte order mark", WINE, ("wine.csv", "bom.csv"), [], 0, RIGHT),
    ("a6: names in three scripts", WINE, ("wine.csv", "unicode.csv"), ["--data.source.init_args.label", "Sorte Ⅱ"], 2, r"classes: \[Rotwein \(süß\) 🍷, 白ワイン, rosé\]"),
    ("a6, as told", WINE, ("path: wine.csv", "path: unicode.csv\n      classes: [Rotwein (süß) 🍷, 白ワイン, rosé]"), ["--data.source.init_args.label", "Sorte Ⅱ"], 0, RIGHT),
    ("a7: Latin-1", WINE, ("wine.csv", "latin.csv"), [], 2, r"0xfc in line 2 (?s:.*)data\.source(?s:.*)encoding: cp1252"),
    ("a8: missing numbers", WINE, ("wine.csv", "nan.csv"), [], 2, r"row 0(?s:.*)in 18 rows(?s:.*)data\.tabular: \{\}"),
    ("infinity", WINE, ("wine.csv", "inf.csv"), [], 2, r"alcohol(?s:.*)inf"),
    ("a9: a third without labels", WINE, ("wine.csv", "nolabel.csv"), [], 0, r"labels    \d\d training rows, 3 classes"),
    ("no labels", WINE, ("      label: kind\n", ""), ["--policy", "[{metric: agreement, at_least: 0.85}]", "--losses", "[KLDivergence]"], 0, "no baseline"),
    ("a10: n/a among numbers", WINE, ("wine.csv", "textcol.csv"), [], 2, r"`alcohol`, row 7(?s:.*)data\.tabular: \{\}"),
    ("a11: labels 0 to 2", WINE, ("wine.csv", "intlabel.csv"), [], 0, RIGHT),
    ("a12: labels 1 to 3", WINE, ("wine.csv", "int123.csv"), [], 2, r'begin at 1\?(?s:.*)classes: \["1", "2", "3"\]'),
    ("a12, as told", WINE, ("wine.csv", "int123.csv"), [CLASSES, '["1", "2", "3"]'], 0, RIGHT),
    ("a13: the splits of others", WINE, ("wine.csv", "badsplit.csv"), [], 0, "89 train, 27 development, 62 test"),
    ("a column of names as split", WINE, ("split: split", "split: kind"), [], 2, "train, development"),
    ("a14: all training rows in test", WINE, ("wine.csv", "dup.csv"), [], 2, "89 of 89 training rows dropped: they also stand in test"),
    ("d1: some training rows in test", WINE, ("wine.csv", "dup20.csv"), [], 0, "note: 20 of 89 training rows dropped: they also stand in test"),
    ("dupsame: rows twice in one split", WINE, ("wine.csv", "dupsame.csv"), [], 0, "109 train, 27 development, 62 test"),
    ("d2: rows twice, drawn splits", WINE, ("      split: split", "      #"), [PATH, "nosplit_dup.csv"], 0, r"\A(?s:(?!.*dropped)).*"),
    ("every row the same", WINE, ("wine.csv", "same.csv"), [], 2, "."),
    ("a15: a pickle", WINE, ("teacher.safetensors", "teacher.pt"), [], 2, r"weights_only=True(?s:.*)save_file"),
    ("a16: batch norm, one row", WINE, ("batch_size: 32", "batch_size: 1"), [STUDENT, "input_nets.BNNet"], 2, r"training\.batch_size\n.*at least 2 rows(?s:.*)raise batch_size"),
    ("batch norm, pieces of one row", WINE, ("batch_size: 32", "batch_size: 8, micro_batches: 8"), [STUDENT, "input_nets.BNNet"], 2, "lower micro_batches"),
    ("batch norm, two rows", WINE, ("batch_size: 32", "batch_size: 2"), [STUDENT, "input_nets.BNNet"], 0, RIGHT),
    ("a17: one row for a loss of pairs", WINE, ("batch_size: 32", "batch_size: 1"), ["--losses", "[{class_path: SimilarityPreserving, init_args: {pairs: auto}}]"], 2, "at least 2 rows in a piece"),
    ("a18: a dictionary", WINE, ("Net, init_args: {inputs: 13, hidden: 128", "DictNet, init_args: {inputs: 13, hidden: 128"), [], 2, "dict(?s:.*)returns the tensor"),
    ("a19: a list", WINE, ("Net, init_args: {inputs: 13, hidden: 128", "ListNet, init_args: {inputs: 13, hidden: 128"), [], 2, "list(?s:.*)returns the tensor"),
    ("fac: a function of one's own", WINE, ("", ""), [STUDENT, "input_nets.made"], 0, RIGHT),
    ("un: arguments without types", WINE, ("", ""), [STUDENT, "input_nets.BNNet"], 0, RIGHT),
    ("a lazy student", WINE, ("", ""), [STUDENT, "input_nets.LazyNet"], 2, "LazyLinear"),
    ("a lazy teacher", LABELS, ("", ""), [PATH, "grades.csv", "--teacher.init_args.module", "{class_path: input_nets.LazyNet, init_args: {inputs: 6, hidden: 8, classes: 3}}"], 2, "LazyLinear"),
    ("the old weight norm", WINE, ("", ""), [STUDENT, "input_nets.OldNorm"], 2, r"parametrizations\.weight_norm"),
    ("m1: a file misspelt", WINE, ("wine.csv", "wines.csv"), [], 2, "did you mean `wine.csv`"),
    ("m1b: weights misspelt", WINE, ("teacher.s", "techer.s"), [], 2, "did you mean `teacher.safetensors`"),
    ("m2: a column misspelt", WINE, ("[alcohol", "[alcohl"), [], 2, "did you mean `alcohol`"),
    ("m2b: a label that is not there", WINE, ("label: kind", "label: class"), [], 2, "hue, kind"),
    ("m3: a number as the label", WINE, ("label: kind", "label: alcohol"), [], 2, "the task is regression"),
    ("m3b: names in a regression", WINE, ("classification", "regression"), [], 2, "`accuracy` is one of task classification: mend `task`"),
    ("m5: a student of 12 columns", WINE, ("13, hidden: 8", "12, hidden: 8"), [], 2, r"\[2, 13\](?s:.*)data\.source\.inputs"),
    ("m5b: a student of two classes", WINE, ("hidden: 8, classes: 3", "hidden: 8, classes: 2"), [], 2, "give the student 3 outputs"),
    ("m5c: weights of another width", WINE, ("hidden: 128", "hidden: 64"), [], 2, r"\[128, 13\](?s:.*)architecture"),
    ("m6: one row in a batch", WINE, ("batch_size: 32", "batch_size: 1"), [], 0, RIGHT),
    ("m7: a head without rows", WINE, ("wine.csv", "empty.csv"), [], 2, "no rows(?s:.*)fill the file"),
    ("m7b: an empty file", WINE, ("wine.csv", "zero.csv"), [], 2, "an empty file(?s:.*)fill it"),
    ("a file of zeros", WINE, ("wine.csv", "zeros.csv"), [], 2, "zeros.csv"),
    ("m9: a device for the training", WINE, ("training: {", "training: {device: cuda, "), [], 2, "it is `device` outside all sections"),
    ("m11: a loss misspelt", WINE, ("KLDivergence", "KLDivergance"), [], 2, "did you mean `KLDivergence`"),
    ("m11b: a class misspelt", WINE, ("", ""), [STUDENT, "input_nets.Nett"], 2, "no `Nett` in input_nets; did you mean `Net`"),
    ("m11c: a file of code misspelt", WINE, ("", ""), [STUDENT, "input_net.Net"], 2, "did you mean `input_nets`"),
    ("m11d: an argument misspelt", WINE, ("hidden: 8", "hiden: 8"), [], 2, "did you mean `hidden`"),
    ("m11e: a metric misspelt", WINE, ("accuracy", "acuracy"), [], 2, "did you mean `accuracy`"),
    ("m11f: a margin in percent", WINE, ("margin: 0.05", "margin: 5"), [], 2, "write margin: 0.05"),
    ("w_layer: a layer misspelt", WINE, ("", ""), ["--losses", "[{class_path: Hint, init_args: {pairs: {body.9: body.3}}}]"], 2, "did you mean `body.3`"),
    ("w_typo: a loss's argument misspelt", WINE, ("temperature", "temprature"), [], 2, "did you mean `temperature`"),
    ("labels -1 and 1", LABELS, ("", ""), [], 2, r'-1 in \d+ rows(?s:.*)classes: \["-1", "1"\]'),
    ("labels -1 and 1, as told", LABELS, ("", ""), [CLASSES, '["-1", "1"]'], 0, "161 training rows, 2 classes"),
    ("codes as labels", LABELS, ("", ""), [PATH, "codes.csv", *THREE], 0, "161 training rows, 3 classes"),
    ("grades as labels", LABELS, ("", ""), [PATH, "grades.csv", *THREE], 2, r'if the numbers are names(?s:.*)classes: \["3", "5", "8"\]'),
    ("grades, models of two outputs", LABELS, ("", ""), [PATH, "grades.csv"], 2, r'classes: \["3", "5", "8"\], for models of 3 outputs'),
    ("grades, as told", LABELS, ("", ""), [PATH, "grades.csv", *THREE, CLASSES, '["3", "5", "8"]'], 0, "161 training rows, 3 classes"),
    ("semicolons and decimal commas", TABLES, ("", ""), [], 2, r'delimiter: ";" and decimal: "," in data\.source'),
    ("semicolons and commas, as told", TABLES, ("path: semi.csv", 'path: semi.csv, delimiter: ";", decimal: ","'), [], 0, "2 classes"),
    ("Latin-1 labels", TABLES, ("semi.csv", "latin.csv"), [], 2, r"0xe9(?s:.*)encoding: cp1252"),
    ("Latin-1 labels, as told", TABLES, ("path: semi.csv", "path: latin.csv, encoding: cp1252"), [], 0, "2 classes"),
    ("? and NA in one column", TABLES, ("semi.csv", "dash.csv"), [], 2, r"row 7 \(line 9\)(?s:.*)missing: \['\?'\] in data\.source"),
    ("? and NA, as told", TABLES, ("path: semi.csv", "path: dash.csv, missing: ['?', NA]"), ["--data.tabular", "{}", "--teacher.init_args.module.init_args.inputs=3", "--student.init_args.module.init_args.inputs=3"], 0, "2 classes"),
    ("two columns of one name", TABLES, ("semi.csv", "dup.csv"), [], 2, "`y`"),
    ("an array in JSON", TABLES, ("semi.csv", "array.json"), [], 0, "2 classes"),
    ("an image without its end", "images/recipe", ("", ""), [], 2, r"imgs/test/b/z\.jpg\n(?s:.*)truncated(?s:.*)repair or remove"),
    ("shapes", "shapes/recipe", ("", ""), [], 0, RIGHT),
    ("e1: no size of images", "shapes/recipe", (", size: 16", ""), [], 2, r"\[2, 3, 18, 20\](?s:.*)data\.images\.size"),
    ("e2: another size of images", "shapes/recipe", ("size: 16", "size: 24"), [], 2, r"\[2, 3, 24, 24\](?s:.*)data\.images\.size"),
    ("e3: folders in alphabetical order", "shapes/recipe", (", classes: [circle, square, triangle, cross]", ""), [], 2, r"classes: \[circle, square, triangle, cross\]"),
    ("f: values of maps", "arrays/maps", ("", ""), [], 2, r"teacher: output\n.*values of a row"),
    ("a code without an embedding", "arrays/codes", ("", ""), [], 2, "row 41 of the data, the largest of `x`: 4"),
    ("g: a pipeline in YAML", "credit/pipeline", ("", ""), [], 0, "standardised"),
    ("g: two values far apart", "credit/numbers", ("", ""), [], 0, "standardised"),
    ("g: classes of a boosted teacher", "credit/classes", ("", ""), [], 0, "2 classes"),
    ("g: two values of one boosted model", "credit/boosted", ("", ""), [], 2, "use XGBoostTeacher or CatBoostTeacher"),
    ("g: a forest of texts", "credit/forest", ("", ""), [], 2, r"texts: town, job(?s:.*)ColumnTransformer(?s:.*)OneHotEncoder"),
    ("g: a list of one label", "credit/one", ("", ""), [], 0, r"R² 0\.9(?s:.*)standardised inside the student"),
    ("a recipe that runs a command", "code/recipe", ("", ""), [], 2, r"os\.system` of Python's standard library"),
]  # fmt: skip
"""Not here, for other tests hold them: texts, models of transformers and servers (`checks/`, `teachers/`)."""


def made(folder: str, root: Path) -> Path:
    """A folder of `inputs/` with the data that its recipes name."""
    place = root / folder
    if not place.exists():
        shutil.copytree(HERE / folder, place)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            runpy.run_path(str(HERE / "make.py"))[folder]()
    return place


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        yield tmp_path_factory.mktemp("inputs")
    sys.modules.pop("input_nets", None)
    look_beside(None)


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_an_input_of_a_newcomer_is_read_rightly_or_answered_with_what_mends_it(
    case: Case, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, recipe, change, options, status, says = case
    folder, _, name = recipe.partition("/")
    monkeypatch.chdir(made(folder, root))
    before = {path.name for path in Path.cwd().iterdir()}
    written = Path(f"{name}.yaml").read_text()
    assert change[0] in written
    Path("changed.yaml").write_text(written.replace(*change, 1) if change[0] else written)
    capsys.readouterr()
    found = main(["doctor", "changed.yaml", "--no-forecast", "--export.onnx", "false", *options])
    shown = "".join(capsys.readouterr())
    assert (found, bool(re.search(says, shown)), "Traceback" in shown) == (status, True, False), shown[-1500:]
    if status == 2:
        assert {path.name for path in Path.cwd().iterdir()} <= {*before, "changed.yaml"}


VALUES: list[tuple[str, list[str], str, float]] = [
    ("prices/recipe", [], "r2", 0.9),
    ("credit/numbers", ["--training.epochs", "20"], "r2", 0.6),
    ("wine/recipe", ["--training.steps", "150"], "accuracy", 0.9),
]


@pytest.mark.parametrize("case", VALUES, ids=[case[0] for case in VALUES])
def test_a_student_of_a_newcomers_input_comes_to_its_value(
    case: tuple[str, list[str], str, float], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, options, metric, least = case
    folder, _, name = recipe.partition("/")
    monkeypatch.chdir(made(folder, root))
    cheap = ["--export.onnx", "false", "--measure.seconds", "0.05", "--measure.rounds", "2", "--measure.batch_sizes"]
    result: Any = distill(load_recipe(f"{name}.yaml", [*cheap, "[1]", *options]), f"out-{name}", progress=False)
    assert {each.name: each.models["student"].value for each in result.metrics()}[metric] > least
