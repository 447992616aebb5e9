"""The README's table, from bundles: `python benchmarks/table.py runs/minilm runs/fashion [--write README.md]`.

With `--write`, the lines between `<!-- results -->` and `<!-- /results -->` of that file are replaced.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLUMNS = {
    "embedding": [("cosine", "cosine to the teacher"), ("pair_spearman", "Spearman of pair similarities")],
    "classification": [("accuracy", "accuracy"), ("agreement", "agreement with the teacher")],
}


def cell(metric: dict[str, Any], model: str) -> str:
    """A value and its interval."""
    found = metric["models"].get(model)
    if found is None:
        return "-"
    scale, unit = (100, "%") if metric["unit"] == "%" else (1, "")
    digits = 1 if unit else 3
    value, low, high = (f"{found[key] * scale:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def rows(bundle: Path) -> list[str]:
    """The lines of one bundle."""
    metrics, cost, verdict, about = (
        json.loads((bundle / f"{name}.json").read_text()) for name in ("metrics", "cost", "verdict", "provenance")
    )
    by_name = {metric["name"]: metric for metric in metrics["metrics"]}
    ratio = cost["ratios"].get("torch/1", {}).get("value")
    teacher, student = (cost["models"][name]["size_bytes"] / 1e6 for name in ("teacher", "student"))
    facts = f"{teacher:.3g} -> {student:.3g} MB, latency x{ratio:.2f}"
    lines = []
    for name, title in COLUMNS[metrics["task"]]:
        metric = by_name[name]
        reference = "baseline" if "baseline" in metric["models"] else "untrained"
        cells = [cell(metric, model) for model in ("teacher", "student", reference)]
        cells[2] += f" ({reference})"
        lines.append(f"| {about['name']} | {title} | {' | '.join(cells)} | {facts} | {verdict['verdict']} |")
        seeds = [seed["metrics"].get(name, {}) for seed in metrics["seeds"]]
        if len(seeds) > 1 and all("baseline" in seed for seed in seeds):
            gains = [seed["student"] - seed["baseline"] for seed in seeds]
            shown = ", ".join(f"{100 * gain:+.1f}" for gain in gains)
            lines.append(f"| | student - baseline, each seed | | {shown} points | | | |")
    return lines


def main() -> None:
    """Prints the table, or writes it into a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    table = [
        "| recipe | on held-out rows | teacher | student | without distillation | size, latency | verdict |",
        "|---|---|---|---|---|---|---|",
        *[line for run in options.runs for line in rows(run / "bundle")],
    ]
    text = "\n".join(table)
    if options.write is None:
        print(text)
        return
    before, rest = options.write.read_text().split("<!-- results -->")
    after = rest.split("<!-- /results -->")[1]
    options.write.write_text(f"{before}<!-- results -->\n{text}\n<!-- /results -->{after}")


if __name__ == "__main__":
    main()
