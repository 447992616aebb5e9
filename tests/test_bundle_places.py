"""Paths that a recipe has absolutely: no file of the bundle tells them, and its recipe is run again by its owner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundle_words import named_in

import tutelage as tt
from tutelage.errors import RecipeError
from tutelage.portable import Places
from tutelage.recipe_file import load_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recipe's file and the bundle of a table and a LightGBM teacher, each at an absolute path."""
    import lightgbm

    far, near = tmp_path_factory.mktemp("far-away"), tmp_path_factory.mktemp("near")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 3))
    labels = (rows[:, 0] > 0).astype(int)
    lines = [f"{a:.6f},{b:.6f},{c:.6f},{y}" for (a, b, c), y in zip(rows, labels, strict=True)]
    (far / "rows.csv").write_text("a,b,c,y\n" + "\n".join(lines) + "\n")
    model = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, labels), 5)
    model.save_model(near / "teacher.txt")
    recipe = {
        "name": "places",
        "task": "classification",
        "data": {
            "source": {
                "class_path": "tutelage.transfer.Table",
                "init_args": {"path": str(far / "rows.csv"), "inputs": ["a", "b", "c"], "label": "y"},
            }
        },
        "teacher": {
            "class_path": "tutelage.Cached",
            "init_args": {
                "teacher": {
                    "class_path": "tutelage.teachers.LightGBMTeacher",
                    "init_args": {"path": str(near / "teacher.txt")},
                },
                "folder": str(far / "cache"),
            },
        },
        "student": {
            "class_path": "tutelage.ModuleStudent",
            "init_args": {
                "module": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 3, "out_features": 2}}
            },
        },
        "licences": {"teacher": {"use": "allowed", "basis": "own work", "date": "2026-01-01"}},
        "losses": [{"class_path": "tutelage.losses.KLDivergence"}],
        "training": {"steps": 40, "batch_size": 32},
        "measure": {"seconds": 0.2, "rounds": 2},
        "policy": [{"metric": "agreement", "at_least": 0.0}],
    }
    (near / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = tt.distill(load_recipe(near / "recipe.yaml"), far / "out", progress=False)
    return near / "recipe.yaml", result.bundle


def test_no_file_of_a_bundle_of_a_table_tells_where_its_data_teacher_and_cache_lay(run: tuple[Path, Path]) -> None:
    recipe, bundle = run
    assert named_in(bundle, recipe.parent.name, "far-away") == []
    stored = yaml.safe_load((bundle / "recipe.yaml").read_text())
    assert stored["data"]["source"]["init_args"]["path"] == "<elsewhere>/rows.csv"
    assert stored["teacher"]["init_args"]["teacher"]["init_args"]["path"] == "teacher.txt"  # beside the recipe


def test_a_bundle_without_places_is_known_as_complete_and_evaluates_as_before(run: tuple[Path, Path]) -> None:
    recipe, bundle = run
    written = (bundle / "provenance.json").read_bytes()
    assert tt.evaluate(bundle)[1] == []
    again = tt.distill(load_recipe(recipe), bundle.parent, progress=False)
    assert (again.bundle / "provenance.json").read_bytes() == written


def test_the_recipe_of_a_bundle_asks_for_the_places_it_lacks_and_runs_with_them(
    run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, bundle = run
    with pytest.raises(RecipeError, match=r"--data\.source\.path PATH --teacher\.folder PATH"):
        load_recipe(bundle / "recipe.yaml")
    places = [
        "--data.source.path",
        str(bundle.parent.parent / "rows.csv"),
        "--teacher.folder",
        str(bundle.parent.parent / "cache"),
    ]
    monkeypatch.chdir(recipe.parent)
    loaded = load_recipe(bundle / "recipe.yaml", places)
    assert len(loaded.data.source.load().columns["inputs"]) == 300


@pytest.mark.parametrize(
    ("path", "told"),
    {
        "{cwd}/data/x.csv": "data/x.csv",
        "{cwd}": ".",
        "{cwd}/a/../x.csv": "x.csv",
        "{beside}/x.csv": "x.csv",
        "{home}/x.csv": "~/x.csv",
        "~/x.csv": "~/x.csv",
        "~ann/data/x.csv": "<elsewhere>/x.csv",
        "/usr/share/ann/x.csv": "<elsewhere>/x.csv",
        "/usr/share/ann/": "<elsewhere>/ann",
        "C:\\Users\\Ann\\x.csv": "<elsewhere>/x.csv",
        "C:/Users/Ann/x.csv": "<elsewhere>/x.csv",
        "\\\\server\\share\\x.csv": "<elsewhere>/x.csv",
        "data/x.csv": "data/x.csv",
        "package:nltk/x.csv": "package:nltk/x.csv",
        "http://host/usr/x": "http://host/usr/x",
        "/no_think": "/no_think",
        "Answer yes/no: ": "Answer yes/no: ",
    }.items(),
)
def test_a_path_is_told_so_that_its_owner_finds_it_and_nobody_learns_a_folder(
    path: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cwd", "beside", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    written = path.format(cwd=tmp_path / "cwd", beside=tmp_path / "beside", home=tmp_path / "home")
    recipe = {"a": [{"b": written}]}
    places = Places(recipe, tmp_path / "beside")
    assert places.told(recipe) == {"a": [{"b": told}]}
    assert json.loads(json.dumps(places.told([f"read `{written}`"]))) == [f"read `{told}`"]


@pytest.mark.parametrize(
    "text",
    [
        "https://host{cwd}/v1/chat",
        "http://127.0.0.1:8000{home}/v1",
        "s3://bucket{cwd}/rows.csv",
        "/mnt{cwd}/rows.csv",
        "${{DATA}}{beside}/rows.csv",
        "https://host/usr/share/ann/x.csv",
    ],
)
def test_an_address_in_which_the_working_folder_appears_stays_the_same_address(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container works in `/app` or `/data`, and servers and buckets have such paths: another host would be asked."""
    for name in ("cwd", "beside", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tutelage.portable._is_place", lambda text: text.startswith("/usr/"))
    url = text.format(cwd=tmp_path / "cwd", beside=tmp_path / "beside", home=tmp_path / "home")
    recipe = {"url": url, "path": "/usr/share/ann/x.csv"}
    assert Places(recipe, tmp_path / "beside").told(recipe) == {"url": url, "path": "<elsewhere>/x.csv"}


def test_names_of_classes_and_cells_that_look_like_paths_are_told_as_they_are() -> None:
    source = {"path": "/usr/share/ann/x.csv", "classes": ["/usr/page", "C:/drive x"], "missing": ["/usr/none"]}
    assert Places(source, None).told(source) == source | {"path": "<elsewhere>/x.csv"}
    assert Places(source, None).told("`/usr/page`") == "`/usr/page`"
