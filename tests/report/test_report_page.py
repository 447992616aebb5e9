"""What stands on the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from synthetic_bundle import write_bundle

from tutelage.errors import DataError
from tutelage.evaluation.benefit import T_95
from tutelage.report import write_report
from tutelage.report.markup import VOID, escape, tag


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)))


def section(html: str, identifier: str) -> str:
    return html[html.index(f'id="{identifier}"') :].split("</section>", maxsplit=1)[0]


def read(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def change(folder: Path, name: str, **changes: Any) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


class Nesting(HTMLParser):
    """Raises when a tag is closed that is not the open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["classification-pass", "embedding-pass", "regression-inconclusive", "verdict-only"])
def test_every_tag_is_closed(bundles: dict[str, Path], name: str) -> None:
    parser = Nesting()
    parser.feed((bundles[name] / "report.html").read_text(encoding="utf-8"))
    assert parser.open == []


def test_no_address_outside_the_page(bundles: dict[str, Path]) -> None:
    for folder in bundles.values():
        html = (folder / "report.html").read_text(encoding="utf-8")
        parser = Nesting()
        parser.feed(html)
        assert [a for a in parser.addresses if not a.startswith(("#", "data:"))] == []
        assert "url(" not in html
        assert "@import" not in html


@pytest.mark.parametrize(
    ("name", "word"),
    [("classification-pass", "Pass"), ("classification-fail", "Fail"), ("regression-inconclusive", "Inconclusive")],
)
def test_the_verdict_is_the_title_and_the_heading(bundles: dict[str, Path], name: str, word: str) -> None:
    html = (bundles[name] / "report.html").read_text(encoding="utf-8")
    assert f"<title>{word.upper()}: {name}" in html
    assert f"<span>{word}</span></h1>" in html


def test_a_failure_says_why_in_its_first_sentence(bundles: dict[str, Path]) -> None:
    verdict = json.loads((bundles["classification-fail"] / "verdict.json").read_text())
    html = (bundles["classification-fail"] / "report.html").read_text(encoding="utf-8")
    reason = re.findall(r'<p class="reason">(.*?)</p>', html)[0]
    points = re.findall(r"([\d.]+) points below", verdict["reasons"][0])[0]
    assert reason.startswith("The student&#x27;s accuracy is")
    assert points in reason
    assert "FAIL" not in reason  # the heading says so


def test_without_a_verdict_nothing_is_called_passed(bundle: Path) -> None:
    (bundle / "verdict.json").unlink()
    html = read(bundle)
    assert "<span>Not judged</span></h1>" in html
    assert "verdict.json is not in the bundle" in text_of(html)
    assert 'class="outcome pass">' not in section(html, "gates")


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("verdict.json", "gates"), ("metrics.json", "results"), ("cost.json", "cost"), ("history.jsonl", "training"),
        ("evidence.parquet", "agreement"), ("disagreements.json", "disagreements"), ("export.json", "export"),
        ("provenance.json", "run"), ("recipe.yaml", "run"),
    ],
)  # fmt: skip
def test_an_absent_file_is_named_where_it_is_missed(bundle: Path, file: str, place: str) -> None:
    assert f"{file} is not in the bundle" not in text_of(section(read(bundle), place))
    (bundle / file).unlink()
    html = read(bundle)
    assert f"{file} is not in the bundle" in text_of(section(html, place))
    assert f"<code>{file}</code>" in section(html, "run")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.json and verdict\.json"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["metrics.json", "verdict.json", "cost.json", "history.jsonl", "provenance.json"])
@pytest.mark.parametrize("content", ["{half", "[1, 2]", '"text"'])
def test_a_damaged_file_is_named_and_the_old_page_stays(bundle: Path, file: str, content: str) -> None:
    before = read(bundle)
    (bundle / file).write_text(content)
    with pytest.raises(DataError, match=re.escape(file)):
        write_report(bundle)
    assert (bundle / "report.html").read_text(encoding="utf-8") == before


def test_a_failure_while_writing_leaves_the_old_page_and_no_litter(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(bundle)
    names = sorted(p.name for p in bundle.iterdir())

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_report(bundle)
    assert (bundle / "report.html").read_text(encoding="utf-8") == before
    assert sorted(p.name for p in bundle.iterdir()) == names


def test_the_page_is_the_same_each_time(bundle: Path) -> None:
    assert read(bundle) == read(bundle)


ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


def test_text_from_any_file_is_escaped(bundle: Path) -> None:
    verdict = json.loads((bundle / "verdict.json").read_text())
    verdict["reasons"] = [ATTACK]
    verdict["verdict"] = ATTACK
    for gate in verdict["gates"]:
        gate.update(name=ATTACK, requirement=ATTACK, explanation=ATTACK, unit=ATTACK, outcome=ATTACK, kind=ATTACK)
    (bundle / "verdict.json").write_text(json.dumps(verdict))
    metrics = json.loads((bundle / "metrics.json").read_text())
    metrics["notes"] = [ATTACK]
    for metric in metrics["metrics"]:
        metric.update(title=ATTACK, set=ATTACK)
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    change(
        bundle, "provenance.json", tutelage=ATTACK, created=ATTACK, teacher={ATTACK: [ATTACK]}, files={ATTACK: ATTACK}
    )
    change(bundle, "export.json", safetensors={"file": ATTACK, "layout": ATTACK, "max_abs_difference": 0.0})
    change(
        bundle, "disagreements.json", kind="image", items=[{"row": ATTACK, "input": f"data:image/png;base64,{ATTACK}"}]
    )
    (bundle / "recipe.yaml").write_text(f"name: {json.dumps(ATTACK)}\n# {ATTACK}\nkey: 1\n")
    lines = [{"role": "student", "step": k, "loss": 1.0, "terms": {ATTACK: 1.0, "b": 1.0}} for k in (1, 2)]
    lines.append({"role": "student", "step": 2, "development": {ATTACK: 0.5}})
    (bundle / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    html = read(bundle)
    assert html.count("<script>") == 1
    assert "<img" not in section(html, "disagreements")
    # `alert` appears only with its brackets escaped, never as a tag or an attribute of one.
    assert "<img src=x" not in html
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []


@pytest.mark.parametrize("text", ["nul \x00", "bell \x07", "lone surrogate \ud800", "\uffff"])
def test_characters_that_no_page_may_hold_are_replaced(bundle: Path, text: str) -> None:
    change(bundle, "disagreements.json", kind="text", items=[{"row": 1, "input": text, "teacher": "a", "student": "b"}])
    assert "\ufffd" in section(read(bundle), "disagreements")


def test_an_image_from_elsewhere_is_never_an_image() -> None:
    from tutelage.report.sections.disagreements import IMAGE

    assert IMAGE.fullmatch("data:image/png;base64,iVBORw0KGgo=")
    for other in ("https://example.org/a.png", "data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA", "x"):
        assert not IMAGE.fullmatch(other)


def test_markup_is_not_safe_as_an_attribute() -> None:
    assert tag("p", class_=escape('"')) == '<p class="&amp;quot;"></p>'
    assert tag("p", escape("<")) == "<p>&lt;</p>"


def with_difference(
    folder: Path, value: float, low: float, high: float, *, reservation: str = "", **metric: Any
) -> str:
    """The section on the benefit, with the first quality metric's difference from the baseline laid down."""
    metrics = json.loads((folder / "metrics.json").read_text())
    first = next(m for m in metrics["metrics"] if m["name"] == "accuracy")
    first["differences"]["student - baseline"] = {
        "value": value, "low": low, "high": high, "reservation": reservation
    }  # fmt: skip
    first.update(metric)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return text_of(section(read(folder), "benefit"))


@pytest.mark.parametrize(
    ("numbers", "higher", "answer"),
    [
        ((0.02, 0.01, 0.03), True, "Yes."),
        ((0.02, -0.01, 0.05), True, "Not shown."),
        ((-0.02, -0.03, -0.01), True, "No."),
        ((-0.02, -0.03, -0.01), False, "Yes."),
        ((0.02, 0.01, 0.03), False, "No."),
        ((0.0, 0.0, 0.0), True, "Not shown."),
    ],
)
def test_the_page_says_plainly_whether_distillation_helps(
    bundle: Path, numbers: tuple[float, float, float], higher: bool, answer: str
) -> None:
    said = with_difference(bundle, *numbers, higher_is_better=higher)
    answers = [a for a in ("Yes.", "No.", "Not shown.", "Not measured.") if f" {a} " in said]
    assert answers == [answer]
    assert ("without the teacher" in said) and ("do harm" in said) == (answer == "No.")


def test_no_benefit_is_claimed_by_an_interval_with_a_reservation(bundle: Path) -> None:
    why = "2 of 300 rows make up half of the variance"
    said = with_difference(bundle, 0.02, 0.01, 0.03, reservation=why)
    assert " Not shown. " in said and " Yes. " not in said
    assert f"be relied on: {why}" in said
    table = text_of(section(read(bundle), "results"))
    assert re.search(rf"† Accuracy, student . baseline: the interval may be too short, as {why}", table)
    assert table.count("†") == 2  # beside the interval, and where it is told why


def test_one_lucky_seed_is_not_called_a_benefit(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", rows=300, seeds=3)
    metrics = json.loads((folder / "metrics.json").read_text())
    for seed, gap in zip(metrics["seeds"], (0.03, -0.02, -0.03), strict=True):
        seed["metrics"]["accuracy"] = {"student": 0.9 + gap, "baseline": 0.9}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    said = with_difference(folder, 0.03, 0.02, 0.04)
    assert " Not shown. " in said
    assert "better in 1 of 3" in said


def test_the_interval_over_seeds_is_students(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", rows=300, seeds=5)
    gaps = [0.020, 0.024, 0.031, 0.016, 0.029]
    metrics = json.loads((folder / "metrics.json").read_text())
    for seed, gap in zip(metrics["seeds"], gaps, strict=True):
        seed["metrics"]["accuracy"] = {"student": 0.9 + gap, "baseline": 0.9}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    low, high = stats.t.interval(0.95, len(gaps) - 1, loc=0.024, scale=stats.sem(gaps))
    said = with_difference(folder, 0.02, 0.01, 0.03)
    assert f"+{100 * low:.1f} to +{100 * high:.1f}" in said


def test_the_quantiles_of_t_are_right() -> None:
    expected = [stats.t.ppf(0.975, freedom) for freedom in range(1, len(T_95) + 1)]
    assert list(T_95) == pytest.approx(expected, abs=6e-4)


def test_without_a_baseline_no_benefit_is_claimed(bundles: dict[str, Path]) -> None:
    said = text_of(section((bundles["embedding-pass"] / "report.html").read_text(encoding="utf-8"), "benefit"))
    assert "Not measured." in said
    assert "Yes." not in said


def test_the_table_shows_the_numbers_of_the_files(bundle: Path) -> None:
    metrics = json.loads((bundle / "metrics.json").read_text())["metrics"]
    html = text_of(section(read(bundle), "results"))
    accuracy = next(m for m in metrics if m["name"] == "accuracy")
    for model in ("teacher", "student", "baseline", "untrained"):
        assert f"{100 * accuracy['models'][model]['value']:.1f}%" in html


def test_speed_is_the_inverse_of_the_ratio_with_its_ends_swapped(bundle: Path) -> None:
    cost = json.loads((bundle / "cost.json").read_text())
    cost["ratios"]["onnxruntime/1"] = {"value": 0.25, "low": 0.2, "high": 0.5}
    (bundle / "cost.json").write_text(json.dumps(cost))
    said = text_of(section(read(bundle), "glance"))
    assert "4.00× as fast" in said
    assert "2.00× to 5.00×" in said


def other_library(bundle: Path) -> None:
    """The cost of a teacher that is timed in its own library: one form of both, of no known parameters."""
    cost = json.loads((bundle / "cost.json").read_text())
    form = "from raw columns"
    teacher, student = cost["models"]["teacher"], cost["models"]["student"]
    torch = [lat for lat in student["latencies"] if lat["form"] == "torch"]
    student["latencies"] += [{**lat, "form": form, "p50_ms": 2 * lat["p50_ms"]} for lat in torch]
    teacher["latencies"] = [{**lat, "form": form} for lat in teacher["latencies"] if lat["form"] == "torch"]
    teacher |= {"parameters": None, "embedding_parameters": None, "peak_memory_bytes": {}}
    cost["ratios"] = {f"{form}/1": {"value": 0.25, "low": 0.2, "high": 0.5}}
    cost["forms"] = {form: "<trees> from columns to answer"}
    (bundle / "cost.json").write_text(json.dumps(cost))


def test_a_teacher_of_another_library_is_compared_in_the_form_that_both_have(bundle: Path) -> None:
    """Catches a tile of the student's quickest form alone, and marks of other forms beside the teacher's."""
    other_library(bundle)
    html = read(bundle)
    said = text_of(section(html, "glance"))
    assert "4.00× as fast" in said and "median, from raw columns" in said
    cost = section(html, "cost")
    assert "From raw columns" in cost and "&lt;trees&gt; from columns to answer" in cost
    assert "hollow: from raw columns" in text_of(cost) and "filled: onnxruntime" not in text_of(cost)
    assert "was not timed" not in cost


def test_a_teacher_that_was_not_timed_is_said_to_be_so(bundle: Path) -> None:
    cost = json.loads((bundle / "cost.json").read_text())
    del cost["models"]["teacher"]
    (bundle / "cost.json").write_text(json.dumps(cost))
    assert "The teacher was not timed" in section(read(bundle), "cost")


def test_a_confusion_counts_rows_by_both_answers(bundle: Path) -> None:
    from tutelage.evaluation.evidence import Evidence

    evidence = Evidence.read(bundle / "evidence.parquet")
    teacher, student = (evidence.outputs[m].argmax(axis=1) for m in ("teacher", "student"))
    html = section(read(bundle), "agreement")
    cells = [int(n) for n in re.findall(r'<td[^>]*style="--s[^>]*>(\d+)</td>', html)]
    assert sum(cells) == int((teacher != student).sum()) > 0


def test_a_bundle_of_torch_only_costs_or_without_a_teacher_is_shown(bundle: Path) -> None:
    cost = json.loads((bundle / "cost.json").read_text())
    del cost["models"]["teacher"]
    cost["ratios"] = {}
    cost["models"]["student"]["latencies"] = [
        lat for lat in cost["models"]["student"]["latencies"] if lat["form"] == "torch"
    ]
    (bundle / "cost.json").write_text(json.dumps(cost))
    change(bundle, "export.json", onnx=None)
    html = text_of(read(bundle))
    assert "There is no ONNX export." in html
    assert "as fast" not in html


def test_the_step_that_was_kept_is_the_last_best(bundle: Path) -> None:
    assert "student: step 2,500 was kept" in section(read(bundle), "training").lower()


def test_metrics_that_a_gate_judges_are_drawn_first(bundle: Path) -> None:
    record = {"role": "student", "seed": 0, "step": 5, "steps": 9, "best": True}
    values = dict.fromkeys(("accuracy", "agreement", "brier", "ece", "kl", "nll"), 0.5)
    (bundle / "history.jsonl").write_text(json.dumps({**record, "development": values}))
    html = section(read(bundle), "training")
    titles = re.findall(r"<figcaption><strong>(.*?)</strong>", html)
    assert titles[:2] == ["Accuracy", "Agreement"]
    assert html.index("2 further metrics") > html.index("<strong>Agreement")


def test_a_metric_of_grouped_rows_says_what_its_intervals_resample(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", rows=300, seeds=1)
    stored = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert "resample" not in text_of(section(read(folder), "results"))
    change(folder, "metrics.json", metrics=[{**metric, "groups": 12} for metric in stored])
    assert "300 rows in 12 groups; intervals resample groups" in text_of(section(read(folder), "results"))
