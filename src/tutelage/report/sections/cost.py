"""What the models cost: latency against quality, the distribution of latencies, memory."""

from __future__ import annotations

import numpy as np

from tutelage.devices.cost import Cost, Latency
from tutelage.evaluation.results import MetricResult
from tutelage.report.bundle import Bundle
from tutelage.report.charts import Point, point_chart
from tutelage.report.formats import count, factor, interval, milliseconds, size, value
from tutelage.report.markup import Child, Markup, note, section, tag
from tutelage.report.names import full_title, lower_first, split_title
from tutelage.report.strips import histogram
from tutelage.report.svg import Axis, Legend, Scale, Words

__all__ = ["cost"]

LEDE = "Teacher and student ran in alternating rounds on one device, so that both had the same disturbances."


def cost(bundle: Bundle) -> Markup:
    """The chart of latency against quality, then the table."""
    if bundle.cost is None:
        return section("cost", "Cost", LEDE, note("cost.json is not in the bundle: nothing was measured on a device."))
    parts: list[Child] = [
        _trade(bundle, bundle.cost),
        _latencies(bundle.cost),
        _memory(bundle.cost),
        _device(bundle.cost),
    ]
    return section("cost", "Cost", LEDE, *parts)


def _all(bundle_cost: Cost) -> list[tuple[str, Latency]]:
    return [(name, lat) for name, model in bundle_cost.models.items() for lat in model.latencies]


def _trade(bundle: Bundle, measured: Cost) -> Markup | None:
    metric = bundle.primary("quality")
    if metric is None or "teacher" not in metric.models:
        metric = bundle.primary("fidelity")
    theirs = {lat.form for name, lat in _all(measured) if name == "teacher"}
    # Like beside like: a student in a form that the teacher does not have would look quicker than it is.
    latencies = [(name, lat) for name, lat in _all(measured) if not theirs or lat.form in theirs]
    if metric is None or not latencies:
        return None
    batch = min(lat.batch for _, lat in latencies)
    points = _points(metric, [(name, lat) for name, lat in latencies if lat.batch == batch])
    if not points:
        return None
    return _trade_chart(metric, points, batch, sorted({lat.form for _, lat in latencies}))


def _points(metric: MetricResult, latencies: list[tuple[str, Latency]]) -> list[Point]:
    points = []
    # Both runtimes of a model are equally good: one name for the pair, or the names lie over one another.
    named: set[str] = set()
    for name, lat in sorted(latencies, key=lambda pair: pair[1].p50_ms):
        if name not in metric.models and metric.kind == "quality":
            continue
        estimate = metric.models.get(name)
        # A model agrees with itself: the teacher's fidelity is the end of the scale.
        y = estimate.value if estimate else (1.0 if metric.higher_is_better else 0.0)
        points.append(
            Point(
                name="" if name in named else name,
                css=f"{name} {'' if lat.form == 'onnxruntime' else 'hollow'}".strip(),
                x=lat.p50_ms,
                x_high=lat.p95_ms,
                y=y,
                low=estimate.low if estimate else None,
                high=estimate.high if estimate else None,
                text=f"{_said(name, lat)}; {metric.title} {value(y, metric.unit)}",
            )
        )
        named.add(name)
    return points


def _trade_chart(metric: MetricResult, points: list[Point], batch: int, forms: list[str]) -> Markup:
    ends = [v for p in points for v in (p.x, p.x_high or p.x)]
    log = max(ends) > 4 * min(ends) > 0
    x = Axis(
        title=f"latency at batch {batch}, ms{' (logarithmic)' if log else ''}",
        scale=Scale.over(ends, log=log, padding=0.12),
    )
    scale = Scale.over([v for p in points for v in (p.y, p.low, p.high)], unit=metric.unit, padding=0.2)
    better = "higher is better" if metric.higher_is_better else "lower is better"
    words = Words(
        title=f"Latency against {lower_first(full_title(metric))}",
        summary=". ".join(p.text for p in points),
        footnote="A mark is the median latency; the line to its right ends at the 95th percentile, the upright one is "
        "the interval of the metric. The further left, the quicker."
        + ("" if metric.kind == "quality" else " The teacher agrees with itself."),
        legend=[
            Legend("teacher", "teacher"),
            Legend("student", "student"),
            *_runtimes(forms),
        ],
    )
    return point_chart(words, points, x, Axis(title=f"{split_title(metric.title)[0]}, {better}", scale=scale))


def _runtimes(forms: list[str]) -> list[Legend]:
    """What hollow and filled marks are."""
    words = [f"hollow: {form}" for form in forms if form != "onnxruntime"]
    words += ["filled: onnxruntime"] if "onnxruntime" in forms else []
    return [Legend("student hollow" if words[0].startswith("hollow") else "student", ", ".join(words))]


def _said(name: str, lat: Latency) -> str:
    at = f"{name}, {lat.form}, batch {lat.batch}"
    return f"{at}: median {milliseconds(lat.p50_ms)}, p95 {milliseconds(lat.p95_ms)}"


def _latencies(measured: Cost) -> Markup:
    rows = sorted(_all(measured), key=lambda pair: (pair[1].batch, pair[1].form, pair[0] != "teacher"))
    if not rows:
        return note("No latency was measured.")
    titles = ("Batch", "Runtime", "Model", "Distribution", "Median", "p95", "p99", "Rows a second", "Speed-up")
    head = tag("tr", [tag("th", t, scope="col", class_="number" if k > 3 else None) for k, t in enumerate(titles)])
    scales = {lat.batch: _spread([other for _, other in rows if other.batch == lat.batch]) for _, lat in rows}
    body = []
    before: Latency | None = None
    for name, lat in rows:
        body.append(
            _latency_row(name, lat, scales[lat.batch], measured, starts=before is None or before.batch != lat.batch)
        )
        before = lat
    table = tag("table", tag("thead", head), tag("tbody", body), class_="latencies stack cells")
    about = note(
        f"{measured.rounds} alternating rounds. Within a batch size all distributions share one logarithmic scale, "
        "slower to the right; the line is the median, and calls beyond the scale are in its last column. Under p95 is "
        "its 95% interval, from order statistics; an end that so few calls can't set is left out. The speed-up "
        "compares medians round by round."
        f"{_disturbed(measured)}"
    )
    forms = [note(tag("b", f"{form[0].upper()}{form[1:]}"), f": {what}.") for form, what in measured.forms.items()]
    if "teacher" not in measured.models:
        forms.append(note("The teacher was not timed: how much quicker the student is was not measured."))
    return tag("div", tag("h3", "Latency of a call"), tag("div", table, class_="scroll", tabindex="0"), about, *forms)


def _disturbed(measured: Cost) -> str:
    shared, kept = measured.contention.get("contaminated", 0), measured.contention.get("kept", 0)
    if not shared:
        return ""
    said = (
        f" Other work disturbed {shared:,} timed rounds, over all runtimes and batch sizes; {kept:,} of them could not "
        "be replaced and are among the samples."
    )
    worse = [
        f"{key} {factor(1 / wall.value)} by wall time, {factor(1 / cpu.value)} by CPU time"
        for key, wall in measured.ratios.items()
        for cpu in [measured.cpu_ratios.get(key)]
        if cpu and cpu.value > 0 and wall.value > 0 and measured.stays_disturbed(*_cell(key))
    ]
    if worse:
        said += (
            " Other work slows a long call more than a short one, so where it disturbed more than a quarter of the "
            f"rounds the speed-up is the lesser of two: {'; '.join(worse)}."
        )
    return said


def _cell(key: str) -> tuple[str, int]:
    """Form and batch size of a key such as `torch/32`."""
    form, _, batch = key.rpartition("/")
    return form, int(batch)


def _spread(latencies: list[Latency]) -> Scale:
    ends = []
    for lat in latencies:
        samples = [v for r in lat.samples_ms for v in r] or [lat.p50_ms, lat.p99_ms]
        ends += [float(np.quantile(samples, 0.002)), float(np.quantile(samples, 0.97))]
    return Scale.over(ends, log=True, padding=0.04)


def _latency_row(name: str, lat: Latency, scale: Scale, measured: Cost, *, starts: bool) -> Markup:
    samples = [v for r in lat.samples_ms for v in r]
    ratio = measured.ratio(lat.form, lat.batch) if name == "student" else None
    speed: list[Child] = ["—" if name == "student" else "1×"]
    if ratio and ratio.value > 0:
        speed = [tag("b", factor(1 / ratio.value))]
        if ratio.low and ratio.high:
            speed.append(tag("span", f"{factor(1 / ratio.high)} to {factor(1 / ratio.low)}", class_="ci"))
    return tag(
        "tr",
        tag("th", tag("span", f"{lat.batch}", class_="seen" if starts else "repeated"), scope="row", class_="batch"),
        tag("td", lat.form, class_="form"),
        tag("td", name, class_="form"),
        tag(
            "td", histogram(samples, scale, name, f"{_said(name, lat)}, p99 {milliseconds(lat.p99_ms)}"), class_="drawn"
        ),
        tag(
            "td",
            tag("b" if name == "student" else "span", milliseconds(lat.p50_ms)),
            class_="number",
            data_label="Median",
        ),
        tag(
            "td",
            milliseconds(lat.p95_ms),
            tag("span", interval(lat.p95_low_ms, lat.p95_high_ms, "ms"), class_="ci"),
            class_="number",
            data_label="p95",
        ),
        tag("td", milliseconds(lat.p99_ms), class_="number", data_label="p99"),
        tag(
            "td",
            count(1000 * lat.batch / lat.p50_ms) if lat.p50_ms > 0 else "—",
            class_="number",
            data_label="Rows a second",
        ),
        tag("td", speed, class_="number", data_label="Speed-up"),
        class_="first" if starts else None,
    )


def _memory(measured: Cost) -> Markup:
    forms = sorted({form for model in measured.models.values() for form in model.peak_memory_bytes})
    titles = ("Model", "Parameters", "in embeddings", "Weights", *(f"Peak memory, {form}" for form in forms))
    head = tag("tr", [tag("th", t, scope="col", class_="number" if k else None) for k, t in enumerate(titles)])
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", _counted(model.parameters), class_="number"),
            tag("td", _counted(model.embedding_parameters), class_="number"),
            tag("td", size(model.size_bytes), class_="number"),
            [tag("td", size(model.peak_memory_bytes.get(form)), class_="number") for form in forms],
        )
        for name, model in measured.models.items()
    ]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="memory")
    return tag("div", tag("h3", "Parameters and memory"), tag("div", table, class_="scroll", tabindex="0"))


def _counted(number: int | None) -> str:
    return "—" if number is None else f"{number:,}"


def _device(measured: Cost) -> Markup:
    said = " · ".join(
        f"{key.replace('_', ' ')}: {val}"
        for key, val in measured.device.items()
        if not isinstance(val, dict | list | None)
    )
    return note(tag("b", "Measured on "), said or "a device that is not described")
