"""`tutelage generate`: a chat model writes about each row, at a real server."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from local_server import LocalServer, serving

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import DataError, ModelError, QueryFailed, RecipeError
from tutelage.explain import dotted_fields
from tutelage.ledger import Asking, Caps
from tutelage.transfer import Features, Rows, Source, Table

TITLES = ["Rain in Spain", "A goal in the last minute", "Shares fall", "New telescope sees far", "Vote put off", "Ω"]
QUICK = Asking(concurrent=3, attempts=3, first_wait=0.01, timeout=10)
ALLOWED = {"teacher": tt.Licence(use="allowed", basis="a server of this test", date="2026-01-31")}


def text_of(prompt: str) -> str:
    """What the server writes, as a rule that the tests can apply as well."""
    return f"„{prompt[::-1]}“\n{len(prompt)}"


def writer(**choices: dict[str, Any]):
    """The server's way to answer; a prompt that contains one of the words gets that choice instead."""

    def complete(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        prompt = body["messages"][-1]["content"]
        message = {
            "role": "assistant",
            "content": f"{text_of(prompt)}" + (f" #{number}" if body["temperature"] else ""),
        }
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        choice |= next((other for word, other in choices.items() if word in prompt), {})
        if body.get("logprobs"):
            tops = [{"token": t, "logprob": -float(n)} for n, t in enumerate("ab")][: body["top_logprobs"]]
            choice["logprobs"] = {"content": [{"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": tops}]}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 7}
        return 200, {"model": "tiny-0613", "choices": [choice], "usage": usage}

    return complete


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with serving() as running:
        running.complete = writer()  # type: ignore[method-assign]
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Table:
    path = tmp_path / "titles.jsonl"
    rows = [{"title": t, "kind": "long" if len(t) > 12 else "short", "unused": 1} for t in TITLES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Table(str(path), text="title", label="kind")


def recipe(server: LocalServer, source: Source, folder: Path, limit: int | None = None, **settings: Any):
    settings = {"asking": QUICK, "prompt": "Sum up: {title}", "system": "Be brief."} | settings
    licences = settings.pop("licences", ALLOWED)
    teacher = tt.ChatModel(url=f"{server.url}/v1", model="tiny", ledger=str(folder / "l.sqlite"), **settings)
    data = tt.Prompts(source=source, limit=limit)
    return tt.Generation(name="sums", data=data, teacher=teacher, licences=licences)


class Given(Source):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def load(self) -> Rows:
        return self.rows


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_row_keeps_its_own_text_and_its_columns(server: LocalServer, source: Table, tmp_path: Path) -> None:
    """Answers come in another order than they were asked in."""
    done = tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False)
    rows = lines(done.path)
    for row, title in zip(rows, TITLES, strict=True):
        prompt = f"Sum up: {title}"
        assert row == {
            "title": title,
            "label": "long" if len(title) > 12 else "short",
            "prompt": prompt,
            "completion": text_of(prompt),
            "finish_reason": "stop",
            "teacher": "tiny-0613",
            "sample": 0,
            "tokens_in": len(prompt),
            "tokens_out": 7,
        }
    path, body = server.posts()[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."} and body["max_tokens"] == 512
    assert len(server.posts()) == 1 + len(TITLES)  # and one call that tries the settings


def test_both_formats_say_the_same_and_our_sources_and_datasets_read_them(
    server: LocalServer, source: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sets"
    made = recipe(server, source, tmp_path)
    tt.generate(made, folder / "a.jsonl", progress=False)
    tt.generate(made, folder / "parquet" / "a.parquet", progress=False)
    assert pq.read_table(folder / "parquet" / "a.parquet").to_pylist() == lines(folder / "a.jsonl")
    for place in (folder / "a.jsonl", folder / "parquet" / "a.parquet", folder / "parquet", folder):
        rows = Table(str(place), text=["prompt", "completion"], label="label").load()
        assert list(rows.columns["completion"]) == [text_of(f"Sum up: {title}") for title in TITLES], place
        assert rows.classes == ("long", "short")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = datasets.load_dataset(
        "json", data_files=str(folder / "a.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found["completion"][5] == text_of("Sum up: Ω")


def test_a_stop_at_a_cap_writes_nothing_the_next_run_asks_the_rest_and_the_third_nobody(
    server: LocalServer, source: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {
        "name": "sums",
        "data": {"source": {"class_path": "Table", "init_args": {"path": source.path, "text": "title"}}},
        "teacher": {
            "url": f"{server.url}/v1",
            "model": "tiny",
            "prompt": "Sum up: {title}",
            "ledger": str(tmp_path / "l.sqlite"),
            "asking": {"concurrent": 2, "first_wait": 0.01},
            "caps": {"calls": 4},
            "price_in": 1000.0,
        },
        "licences": {"teacher": {"use": "allowed", "basis": "a server of this test", "date": "2026-01-31"}},
    }
    file, out = tmp_path / "r.yaml", tmp_path / "out.jsonl"
    file.write_text(yaml.safe_dump(about))
    assert main(["generate", str(file), "--out", str(out), "--quiet"]) == 4
    assert "the cap on calls is reached: 4 of 4" in capsys.readouterr().err
    assert len(server.posts()) == 4 and not list(tmp_path.glob("*out*"))
    assert main(["generate", str(file), "--out", str(out), "--quiet", "--teacher.caps.calls", "99"]) == 0
    shown = capsys.readouterr().out
    assert len(server.posts()) == 1 + len(TITLES)
    tokens = sum(len(f"Sum up: {title}") for title in TITLES)
    money = (tokens + len("Say OK.")) / 1000
    assert f"6 texts about 6 rows, by tiny-0613\n  tokens:   {tokens} in, 42 out; {money:.6g} in money" in shown
    first = out.read_bytes()
    assert main(["generate", str(file), "--out", str(out), "--quiet", "--teacher.caps.calls", "99"]) == 0
    assert len(server.posts()) == 1 + len(TITLES)
    assert out.read_bytes() == first
    assert main(["generate", str(file), "--out", str(out), "--teacher.promt", "x"]) == 2
    assert "did you mean `prompt`" in capsys.readouterr().err


def test_texts_that_were_cut_off_or_refused_are_counted_told_and_marked(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    server.complete = writer(  # type: ignore[method-assign]
        Rain={"finish_reason": "length"},
        goal={"message": {"content": None, "refusal": "I can't."}},
        Shares={"message": {"content": ""}, "finish_reason": "content_filter"},
        Vote={"message": {"content": None}, "finish_reason": "length"},
        Ω={"finish_reason": "length"},
    )
    done = tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False)
    assert "cut off:  3 of 6" in str(done) and "refused:  2 of 6" in str(done)
    assert done.manifest["counts"]["finish_reasons"] == {"content_filter": 1, "length": 3, "refusal": 1, "stop": 1}
    found = [(row["completion"], row["finish_reason"]) for row in lines(done.path)][:5]
    cut, whole = text_of(f"Sum up: {TITLES[0]}"), text_of(f"Sum up: {TITLES[3]}")
    assert found == [
        (cut, "length"), ("I can't.", "refusal"), ("", "content_filter"), (whole, "stop"), ("", "length")
    ]  # fmt: skip


def test_an_empty_answer_is_asked_again_and_then_stops_the_run(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    server.complete = writer(Shares={"message": {"content": ""}})  # type: ignore[method-assign]
    with pytest.raises(QueryFailed, match="asked 3 times: an empty answer, which ended by 'stop'"):
        tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_text_that_was_filtered_is_left_out_where_that_is_allowed_and_the_others_keep_their_rows(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    inner = writer()
    refused = 400, {"error": {"message": "the content filter"}}
    server.complete = lambda body, n: refused if "goal" in body["messages"][-1]["content"] else inner(body, n)  # type: ignore
    with pytest.raises(QueryFailed, match="asked once: HTTP 400"):
        tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False)
    made = recipe(server, source, tmp_path, unanswered=0.2, samples=2, temperature=0.5)
    with pytest.raises(QueryFailed, match="2 questions have no usable answer"):
        tt.generate(replace(made, teacher=replace(made.teacher, unanswered=0.1)), tmp_path / "out.jsonl")
    done = tt.generate(made, tmp_path / "out.jsonl", progress=False)
    rows = lines(done.path)
    assert [(row["title"], row["sample"]) for row in rows] == [
        (t, n) for t in TITLES if "goal" not in t for n in (0, 1)
    ]
    assert all(row["prompt"] == f"Sum up: {row['title']}" for row in rows)
    assert all(row["completion"].startswith(text_of(row["prompt"])) for row in rows)
    assert "left out: 2 without a usable answer" in str(done)
    assert done.manifest["counts"]["unanswered"] == 2 and done.manifest["file"]["rows"] == 10


def test_samples_of_a_row_are_texts_of_their_own_and_stand_together(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    made = recipe(server, source, tmp_path, samples=3, temperature=1.0)
    rows = lines(tt.generate(made, tmp_path / "out.jsonl", progress=False).path)
    assert [(row["title"], row["sample"]) for row in rows] == [(t, n) for t in TITLES for n in range(3)]
    assert len({row["completion"] for row in rows}) == 18
    assert all(row["completion"].startswith(text_of(f"Sum up: {row['title']}")) for row in rows)
    with pytest.raises(RecipeError, match=r"teacher\.samples[\s\S]*temperature above 0"):
        tt.generate(recipe(server, source, tmp_path, samples=3), tmp_path / "x.jsonl")


def test_log_probabilities_of_the_tokens_are_kept_as_they_were_told(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    made = recipe(server, source, tmp_path, logprobs=2)
    done = tt.generate(made, tmp_path / "out.parquet", progress=False)
    tops = [{"token": "a", "logprob": 0.0}, {"token": "b", "logprob": -1.0}]
    assert pq.read_table(done.path)["logprobs"].to_pylist() == [[{"token": "a", "logprob": -0.25, "top": tops}]] * 6
    assert server.posts()[-1][1]["top_logprobs"] == 2


def test_log_probabilities_that_an_endpoint_does_not_tell_are_missed_before_a_row_is_asked(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    inner = writer()
    server.complete = lambda body, number: inner(body | {"logprobs": False}, number)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"teacher: logprobs[\s\S]*tells none"):
        tt.generate(recipe(server, source, tmp_path, logprobs=2), tmp_path / "out.jsonl")
    assert len(server.posts()) == 1


def test_settings_that_the_endpoint_refuses_stop_it_at_once_and_again_until_they_are_mended(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    """A refusal that was remembered would go on when the model has been started."""
    server.faults = [404, 404]
    for _ in range(2):
        with pytest.raises(ModelError, match=r"teacher: tiny at[\s\S]*HTTP 404"):
            tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False)
    assert len(server.posts()) == 2
    assert len(lines(tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False).path)) == 6


@pytest.mark.parametrize(
    "licences",
    [
        {},
        {"teacher": tt.Licence(use="disallowed", basis="terms, 3.2", date="2026-01-31")},
        {"teacher": tt.Licence(use="unknown", basis="nothing found", date="2026-01-31")},
    ],
)
def test_a_teacher_that_may_not_be_learnt_from_is_not_asked(
    server: LocalServer, source: Table, tmp_path: Path, licences: dict[str, tt.Licence]
) -> None:
    with pytest.raises(RecipeError, match=r"licences\.teacher"):
        tt.generate(recipe(server, source, tmp_path, licences=licences), tmp_path / "out.jsonl")
    assert not server.seen


def test_the_manifest_says_how_the_file_was_made_and_the_licence_leaves_with_it(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    accepted = {"teacher": tt.Licence(use="unknown", basis="nothing found", date="2026-01-31", accept_unknown=True)}
    made = recipe(server, source, tmp_path, licences=accepted, settings={"seed": 3})
    manifests = {}
    for name in ("a.jsonl", "a.parquet"):
        path = tt.generate(made, tmp_path / name, progress=False).path
        manifest = json.loads((tmp_path / f"{name}.manifest.json").read_text())
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        assert manifest.pop("file") == {"name": name, "rows": 6, "sha256": sha}
        manifests[name] = manifest
    within = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"tutelage"])
    assert within.pop("version") == 1
    assert within == manifests["a.parquet"] == manifests["a.jsonl"]
    assert within["made"].startswith("by a teacher")
    assert within["licence"] == {
        "teacher": f"tiny at {server.url}/v1",
        "use": "unknown",
        "basis": "nothing found",
        "date": "2026-01-31",
        "stated_in_the_recipe": True,
        "accepted_although_unknown": True,
    }
    assert within["teacher"]["settings"] == {"seed": 3} and within["teacher"]["served"] == ["tiny-0613"]
    assert within["source"]["rows"] == 6 and within["ledger"] == str(tmp_path / "l.sqlite")
    for titles, same in ((TITLES, True), ([*TITLES[:5], "Ο"], False)):
        given = Given(Rows(columns={"title": titles}, labels=np.array([1, 1, 0, 1, 0, 0]), classes=("short", "long")))
        other = tt.generate(recipe(server, given, tmp_path), tmp_path / "b.jsonl", progress=False).manifest
        assert (other["source"]["sha256"] == within["source"]["sha256"]) == same


def test_a_higher_limit_keeps_the_rows_of_a_lower_one_so_that_only_new_ones_are_paid_for(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    titles = []
    for limit in (2, 4, 6):
        made = recipe(server, source, tmp_path, limit=limit)
        rows = lines(tt.generate(made, tmp_path / f"{limit}.jsonl", progress=False).path)
        titles.append([row["title"] for row in rows])
        assert len(rows) == limit and len(server.posts()) == 1 + limit
        assert titles[-1] == [title for title in TITLES if title in titles[-1]]
    assert set(titles[0]) < set(titles[1])


def test_columns_called_as_ours_are_kept_under_another_name_and_missing_cells_are_null(
    server: LocalServer, tmp_path: Path
) -> None:
    numbers = Features({"prompt": np.array([0.5, np.nan]), "colour": ["red", None]}, categories=["colour"])
    given = Rows(columns={"inputs": numbers, "say": ["x", "y"]}, labels=np.array([1.5, 2.5], np.float32))
    made = recipe(server, Given(given), tmp_path, prompt="{say} {colour}")
    rows = lines(tt.generate(made, tmp_path / "out.jsonl", progress=False).path)
    kept = [(row["source_prompt"], row["colour"], row["prompt"], row["label"]) for row in rows]
    assert kept == [(0.5, "red", "x red", 1.5), (None, None, "y None", 2.5)]


def test_what_cannot_be_written_or_asked_is_refused_before_anything_is_asked(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    other = tmp_path / "mine.jsonl"
    other.write_text("{}\n")
    good = recipe(server, source, tmp_path)
    for out, error in (
        (tmp_path / "a.csv", "ending in"),
        (other, "which is none"),
        (other / "x.jsonl", "can be written"),
    ):
        with pytest.raises(RecipeError, match=error):
            tt.generate(good, out)
    assert other.read_text() == "{}\n"
    for wrong, error in (
        (recipe(server, source, tmp_path, prompt="Sum up: {titel}"), r"teacher\.prompt[\s\S]*did you mean `title`"),
        (recipe(server, source, tmp_path, limit=0), r"data\.limit"),
        (recipe(server, source, tmp_path, caps=Caps(money=1.0)), r"teacher\.caps\.money"),
        (recipe(server, source, tmp_path, key_variable="NO_SUCH_KEY"), r"teacher: key_variable"),
    ):
        with pytest.raises((RecipeError, ModelError), match=error):
            tt.generate(wrong, tmp_path / "out.jsonl")
    twice = Given(Rows(columns={"title": ["x"], "label": ["y"]}, labels=np.array([0])))
    with pytest.raises(DataError, match="column `label`"):
        tt.generate(recipe(server, twice, tmp_path), tmp_path / "out.jsonl")
    assert not server.seen


def test_half_a_character_in_an_answer_does_not_lose_the_file(
    server: LocalServer, source: Table, tmp_path: Path
) -> None:
    server.complete = writer(Rain={"message": {"content": "broken \ud83d"}})  # type: ignore[method-assign]
    rows = lines(tt.generate(recipe(server, source, tmp_path), tmp_path / "out.jsonl", progress=False).path)
    assert rows[0]["completion"] == "broken ?"


def test_explain_tells_the_fields_of_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "Generation"]) == 0 and main(["explain", "ChatModel"]) == 0
    shown = capsys.readouterr().out
    assert "licences:" in shown and "max_tokens: int = 512" in shown
    assert "teacher.max_tokens" in dotted_fields("generate") and "teacher.max_tokens" not in dotted_fields()


def test_the_recipe_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")
    text = page.split("tutelage generate news.yaml")[1].split("```yaml\n")[1].split("```")[0]
    (tmp_path / "news.yaml").write_text(text)
    made = tt.load_generation(tmp_path / "news.yaml")
    assert made.teacher.samples == 1 and made.data.limit == 5000 and isinstance(made.data.source, Table)
