"""The recipes run as they are: here with fewer steps and rows, so that what is broken is found in seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_words import named_in

from tutelage.cli import main

RECIPES = Path(__file__).parent.parent / "recipes"


def distil(name: str, folder: Path, *overrides: str) -> Path:
    torch.set_num_threads(1)
    arguments = ["distill", str(RECIPES / name), "--out", str(folder), "--quiet", "--measure.seconds", "1"]
    assert main([*arguments, *overrides]) in (0, 1, 3)
    assert named_in(folder / "bundle") == [], "no file of a bundle names the machine, its user or a path"
    return folder / "bundle"


def metrics(bundle: Path) -> dict[str, dict]:
    return {metric["name"]: metric for metric in json.loads((bundle / "metrics.json").read_text())["metrics"]}


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    short = ["--data.limit", "128", "--data.splits", "{development: 0.03, test: 0.03}", "--training.epochs", "null"]
    return distil("minilm.yaml", tmp_path_factory.mktemp("minilm"), *short, "--training.steps", "6")


def test_minilm_student_is_closer_to_its_teacher_after_six_steps_than_before(minilm: Path) -> None:
    cosine = metrics(minilm)["cosine"]
    assert cosine["differences"]["student - untrained"]["low"] > 0
    assert {"spearman_human:wordsim353", "spearman_human:lee", "pair_spearman"} <= metrics(minilm).keys()


def test_minilm_bundle_loads_in_sentence_transformers_and_answers_as_stored(minilm: Path) -> None:
    import pyarrow.parquet as pq
    from sentence_transformers import SentenceTransformer

    import tutelage as tt

    data = tt.load_recipe(minilm / "recipe.yaml").data.load(minilm)
    table = pq.read_table(minilm / "evidence.parquet")
    rows = table["row"].to_pylist()[:20]
    texts = [data.display(row)["input"] for row in rows]
    found = SentenceTransformer(str(minilm), device="cpu").encode(texts)
    np.testing.assert_allclose(found, np.array(table["student"].to_pylist()[:20]), atol=1e-4)


def test_minilm_human_scores_are_those_that_scipy_finds_for_the_package(minilm: Path) -> None:
    import pyarrow.parquet as pq
    from scipy.stats import spearmanr

    table = pq.read_table(minilm / "evidence-wordsim353.parquet")
    expected = spearmanr(table["score"].to_pylist(), table["teacher"].to_pylist()).statistic
    assert metrics(minilm)["spearman_human:wordsim353"]["models"]["teacher"]["value"] == pytest.approx(expected)
    assert expected == pytest.approx(0.729, abs=0.005)  # known of this teacher


def test_fashion_recipe_runs_with_every_loss_and_three_seeds(tmp_path: Path) -> None:
    short = ["--data.limit", "600", "--data.labelled", "200", "--training.steps", "4", "--training.evaluate_every", "4"]
    teacher = ["--teacher_training", "{steps: 4, batch_size: 64}"]
    bundle = distil("fashion.yaml", tmp_path, *short, *teacher)
    history = [json.loads(line) for line in (bundle / "history.jsonl").read_text().splitlines()]
    assert {(line["role"], line["seed"]) for line in history} == {
        ("teacher", 0),
        *((role, seed) for role in ("student", "baseline") for seed in (0, 1, 2)),
    }
    terms = next(line["terms"] for line in history if line["role"] == "student" and "terms" in line)
    assert set(terms) == {"KLDivergence", "CrossEntropy", "AttentionTransfer", "Hint"}
    seeds = json.loads((bundle / "metrics.json").read_text())["seeds"]
    assert sorted(seed["seed"] for seed in seeds) == [0, 1, 2]
    assert [seed["shipped"] for seed in seeds] == [True, False, False]


def test_tabular_recipe_fits_its_teacher_once_and_ships_the_preprocessing(tmp_path: Path) -> None:
    """On another table, with categories: the record in the bundle and the ONNX file answer as the evidence says."""
    import onnxruntime
    import pyarrow.parquet as pq

    from tutelage.transfer import Encoding, Keel

    teacher = tmp_path / "teacher.txt"
    changes = {
        "data.source.init_args.name": "crx",
        "teacher.init_args.folder": str(tmp_path / "answers"),
        "teacher.init_args.teacher.init_args.path": str(teacher),
        "teacher.init_args.teacher.init_args.fit": "{num_iterations: 10}",
        "student.init_args.module.init_args.inputs": "46",
        "training.epochs": "1",
        "training.batch_size": "32",
        "seeds": "[0]",
    }
    overrides = [word for key, value in changes.items() for word in (f"--{key}", value)]
    bundle = distil("tabular.yaml", tmp_path / "run", *overrides)
    fitted = teacher.stat().st_mtime_ns
    record = json.loads((bundle / "preprocessing.json").read_text())
    card = (bundle / "README.md").read_text()
    assert "Encoding.from_dict" in card and "order of the outputs: 0 negative, 1 positive" in card
    table = pq.read_table(bundle / "evidence.parquet")
    features = Keel("crx").load().columns["inputs"]
    assert not isinstance(features, (np.ndarray, list))
    rows = np.array(table["row"].to_pylist())
    inputs = Encoding.from_dict(record)(features.take(rows))["inputs"]
    (found,) = onnxruntime.InferenceSession(str(bundle / "model.onnx")).run(["output"], {"input": inputs})
    np.testing.assert_allclose(found, np.array(table["student"].to_pylist()), atol=1e-4)
    assert metrics(bundle)["accuracy"]["models"]["teacher"]["value"] > 0.75
    assert main(["doctor", str(RECIPES / "tabular.yaml"), *overrides]) == 0
    assert teacher.stat().st_mtime_ns == fitted


def test_ensemble_recipe_trains_its_three_networks_and_weighs_them_for_each_digit(tmp_path: Path) -> None:
    short = ["--teacher_training", "{steps: 5, batch_size: 64}", "--training.steps", "20", "--seeds", "[0]"]
    bundle = distil("ensemble.yaml", tmp_path, *short)
    history = [json.loads(line) for line in (bundle / "history.jsonl").read_text().splitlines()]
    assert {line["role"] for line in history} == {"teacher 0", "teacher 1", "teacher 2", "student", "baseline"}
    about = json.loads((bundle / "provenance.json").read_text())
    assert "EntropyGate" in about["teacher"]["description"]
    assert {key: record["use"] for key, record in about["licences"].items()} == dict.fromkeys(
        ("teacher.0", "teacher.1", "teacher.2"), "allowed"
    )


def test_newsgroups_source_reads_every_post_without_its_three_header_lines() -> None:
    sys.path.insert(0, str(RECIPES))
    from sources import Newsgroups

    rows = Newsgroups().load()
    assert rows.labels is not None and rows.split is not None
    assert len(rows.classes) == 20 and rows.classes[0] == "alt.atheism"
    assert rows.split.count("") + rows.split.count("test") == len(rows) > 18_000
    first = rows.columns["text"][0]
    assert isinstance(first, str) and first.startswith("alt atheism faq") and rows.labels[0] == 0
    assert set(rows.labels.tolist()) == set(range(20))
    fewer = Newsgroups(held_out=100).load()
    assert fewer.split is not None and fewer.split.count("test") == 100
    assert fewer.split.count("") == rows.split.count("")
