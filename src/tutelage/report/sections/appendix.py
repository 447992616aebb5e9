"""What the page rests on: parity of the exports, the recipe, the environment, digests, and how to check it all."""

from __future__ import annotations

import re
from typing import Any

from tutelage.report.bundle import Bundle
from tutelage.report.formats import count, plain
from tutelage.report.markup import Child, Markup, escape, join, note, section, tag
from tutelage.report.names import model_title
from tutelage.report.sections.opening import icon
from tutelage.report.strips import interval_plot

__all__ = ["export_parity", "recompute", "run"]

SHA256 = re.compile(r"[0-9a-f]{64}")


def export_parity(bundle: Bundle) -> Markup:
    """Whether the exported files say what the student says."""
    title = "Export parity"
    lede = "An exported file is the student only if it gives the student's answers. Each was read back and compared."
    if not bundle.export:
        return section(
            "export", title, lede, note("export.json is not in the bundle: nothing is known about the exports.")
        )
    onnx, weights = bundle.export.get("onnx"), bundle.export.get("safetensors")
    parts = [_onnx(onnx) if onnx else note("There is no ONNX export.")]
    parts.append(_weights(weights) if weights else note("The weights were not read back."))
    return section("export", title, lede, tag("div", parts, class_="parities"))


def _onnx(onnx: dict[str, Any]) -> Markup:
    outcome = "PASS" if onnx.get("agrees") else "FAIL"
    flips, rows = onnx.get("flips"), onnx.get("rows")
    worst, tolerance = onnx.get("max_abs_difference"), onnx.get("tolerance")
    facts = [
        f"largest difference {plain(worst)} {onnx.get('unit', '')}".rstrip(),
        f"mean {plain(onnx.get('mean_abs_difference'))}",
        f"tolerance {plain(tolerance)}",
    ]
    if flips is not None:
        facts.append(f"{flips:,} flipped answers")
    sizes = ", ".join(str(b) for b in onnx.get("batch_sizes") or [])
    where = f"{count(rows)} rows, batch sizes {sizes}, opset {onnx.get('opset')}"
    drawn = None
    if worst and tolerance and worst > 0 and tolerance > 0:
        drawn = interval_plot(
            worst,
            None,
            None,
            threshold=tolerance,
            allowed="below",
            log=True,
            css=f"gate {outcome.lower()}",
            label=f"largest difference {plain(worst)} against tolerance {plain(tolerance)}",
            threshold_label=f"tolerance {plain(tolerance)}",
        )
    verdict = "agrees with the student" if outcome == "PASS" else "does not agree with the student"
    return _parity(str(onnx.get("file")), outcome, verdict, facts, where=where, drawn=drawn)


def _weights(weights: dict[str, Any]) -> Markup:
    worst = weights.get("max_abs_difference")
    facts = [f"largest difference {'0' if worst == 0 else plain(worst)}", f"layout {weights.get('layout')}"]
    said, outcome = "was not read back into a model", "INCONCLUSIVE"
    if worst is not None and weights.get("loads", True):
        said = "gives the student's answers" + (" exactly" if worst == 0 else f" to within {plain(worst)}")
        outcome = "PASS" if worst < 1e-3 else "INCONCLUSIVE"
    return _parity(str(weights.get("file")), outcome, said, facts, where="weights read back from the file")


def _parity(file: str, outcome: str, verdict: str, facts: list[str], *, where: str, drawn: Child = None) -> Markup:
    head = [
        tag("h3", tag("code", file)),
        tag("p", tag("span", icon(outcome), verdict, class_=f"outcome {outcome.lower()}")),
    ]
    return tag("div", *head, drawn, tag("p", " · ".join(facts)), tag("p", where, class_="about"), class_="parity")


def run(bundle: Bundle) -> Markup:
    """The recipe, where it came from, and the digest of each file."""
    lede = "The recipe as it was resolved, with nothing left to defaults; what it ran on; and the digest of every file."
    parts: list[Child] = []
    if bundle.recipe_text:
        parts.append(
            _fold(
                "recipe.yaml, as resolved",
                tag("pre", tag("code", _yaml(bundle.recipe_text)), tabindex="0"),
                "The recipe",
            )
        )
    else:
        parts.append(note("recipe.yaml is not in the bundle, so the run can't be repeated from it."))
    if not bundle.provenance:
        parts.append(note("provenance.json is not in the bundle: the origin of teacher, data and code is not known."))
    asides = {
        **{r: model_title(bundle, r) for r in ("teacher", "student")},
        "licences": "",
        "data": "",
        "environment": "",
        "trainings": "",
    }
    for key, aside in asides.items():
        if bundle.provenance.get(key):
            parts.append(_fold(aside, _tree(bundle.provenance[key]), key.capitalize()))
    files = bundle.provenance.get("files")
    if isinstance(files, dict) and files:
        rows = [
            tag("tr", tag("th", tag("code", str(n)), scope="row"), tag("td", tag("code", str(d)), class_="digest"))
            for n, d in files.items()
        ]
        parts.append(
            _fold(f"{len(files)} files", tag("table", tag("tbody", rows), class_="digests"), "Digests (SHA-256)")
        )
    if bundle.absent:
        parts.append(note("Not in the bundle: ", join(*[tag("code", n) for n in bundle.absent], separator=", "), "."))
    return section("run", "What was run", lede, *parts)


def _fold(aside: str, content: Child, heading: str) -> Markup:
    return tag("details", tag("summary", tag("span", heading), tag("span", aside, class_="aside")), content)


def _tree(value: Any) -> Markup:
    if isinstance(value, dict):
        rows = [join(tag("dt", str(k).replace("_", " ")), tag("dd", _tree(v))) for k, v in value.items()]
        return tag("dl", rows, class_="tree")
    if isinstance(value, list):
        if any(isinstance(v, dict | list) for v in value):
            return tag("ul", [tag("li", _tree(v)) for v in value])
        return tag("span", ", ".join(str(v) for v in value))
    if isinstance(value, int) and not isinstance(value, bool):
        return tag("span", f"{value:,}")
    text = str(value)
    return tag("code", text) if SHA256.search(text) else tag("span", text)


def _yaml(text: str) -> Markup:
    """The keys and comments of a YAML text set off from its values; every part is escaped first."""
    lines = []
    for line in text.splitlines():
        found = re.match(r"^(\s*(?:- )*)([A-Za-z_][\w.-]*)(:)(.*)$", line)
        if line.lstrip().startswith("#"):
            lines.append(tag("i", line))
        elif found:
            indent, key, colon, rest = found.groups()
            lines.append(join(indent, tag("b", key), colon, rest))
        else:
            lines.append(escape(line))
    return join(*lines, separator="\n")


def recompute(bundle: Bundle) -> Markup:
    """The commands by which someone else gets the same numbers."""
    lede = "Nothing here has to be believed: the bundle holds the raw predictions of teacher and student."
    commands = (
        ("tutelage evaluate .", "every metric, interval and gate again, from evidence.parquet"),
        ("tutelage measure .", "latency, memory and size again, on the machine at hand"),
        ("tutelage report .", "this page again"),
    )
    items = [join(tag("dt", tag("code", command)), tag("dd", what)) for command, what in commands]
    where = note("In a terminal, in the folder where this page lies:")
    return section("recompute", "Check it yourself", lede, where, tag("dl", items, class_="commands"))
