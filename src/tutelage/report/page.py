"""The whole page: its sections in reading order, its style and script within it, and nothing from outside."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from tutelage.files import replacing
from tutelage.report.bundle import Bundle, read_bundle
from tutelage.report.markup import Markup, raw, tag
from tutelage.report.names import with_warnings
from tutelage.report.sections.agreement import agreement
from tutelage.report.sections.appendix import export_parity, recompute, run
from tutelage.report.sections.asking import asking
from tutelage.report.sections.benefit import benefit
from tutelage.report.sections.cost import cost
from tutelage.report.sections.disagreements import disagreements
from tutelage.report.sections.gates import gates
from tutelage.report.sections.opening import glance, opening
from tutelage.report.sections.results import results
from tutelage.report.sections.training import training
from tutelage.sealed import SEAL, sealed_text

__all__ = ["render", "write_report"]

CONTENTS = {
    "gates": "Gates",
    "results": "Quality and fidelity",
    "benefit": "Does it help?",
    "cost": "Cost",
    "agreement": "Answer by answer",
    "disagreements": "Disagreements",
    "asking": "What was asked",
    "training": "Training",
    "export": "Exports",
    "run": "What was run",
    "recompute": "Check it",
}
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect x='1' y='1' width='9' height='9' fill='%236b7480'/%3E"
    "%3Ccircle cx='11.5' cy='11.5' r='3.5' fill='%231f62c4'/%3E%3C/svg%3E"
)


def write_report(bundle: Path) -> Path:
    """Writes `report.html` into a bundle folder, from the files of that folder alone.

    Args:
        bundle: The folder, with `metrics.json` or `verdict.json` at least; what else is absent is said on the page.

    Returns:
        The path of the page. It is replaced at once: a reader sees the old page or the new one.

    Raises:
        DataError: The folder isn't a bundle, or a file of it can't be read.
    """
    found = read_bundle(bundle)
    page = sealed_text(render(found), str(found.provenance.get(SEAL, "")))
    target = bundle / "report.html"
    with replacing(target) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    return target


def render(bundle: Bundle) -> Markup:
    """The page as HTML: one document, whose only script is its own and which may load nothing."""
    style, script = _asset("style.css"), _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The browser itself then refuses any request, and any script but ours, whatever an input row contains.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    outcome = f"{bundle.verdict.get('verdict') or 'not judged'}{with_warnings(bundle)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{outcome}: {bundle.name} · tutelage"),
        tag("link", rel="icon", href=ICON),
        tag("style", raw(style)),
    )
    parts = [
        gates(bundle),
        results(bundle),
        benefit(bundle),
        cost(bundle),
        agreement(bundle),
        disagreements(bundle),
        asking(bundle),
        training(bundle),
        export_parity(bundle),
        run(bundle),
        recompute(bundle),
    ]
    links = [tag("li", tag("a", title, href=f"#{identifier}")) for identifier, title in _contents(bundle).items()]
    theme = tag("button", "Dark or light", type="button", id="theme", hidden=True)
    body = tag(
        "body",
        tag("nav", tag("ul", links), theme, aria_label="Contents"),
        opening(bundle),
        tag("main", glance(bundle), *parts),
        tag("footer", _foot(bundle)),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", raw(script)),
    )
    return raw(f"<!doctype html>\n{tag('html', head, body, lang='en')}\n")


def _contents(bundle: Bundle) -> dict[str, str]:
    """The sections that this page has."""
    return {key: title for key, title in CONTENTS.items() if key != "asking" or bundle.asking}


def _foot(bundle: Bundle) -> str:
    version = bundle.provenance.get("tutelage")
    writer = f"tutelage {version}" if version else "tutelage"
    return f"Written by {writer} from the files beside this page. It asks nothing of the network."


def _asset(name: str) -> str:
    return files("tutelage.report").joinpath(name).read_text(encoding="utf-8")
