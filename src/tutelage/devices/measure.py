"""Teacher and student on one device: latency in turn, peak memory, size.

Like is timed with like. Eager torch modules are timed in this process, with the device's number of threads: they are
live modules, and no way to hand any module to another process does without pickle (`torch.export.save` pickles too).
So are teachers that run in a library of their own, each call beside the same call of the student (`served.py`).
ONNX files are timed in a process of their own, and each one's peak memory in a fresh one. The peak memory of eager
torch is measured on CUDA, whose allocator counts it; on a CPU it would be that of the whole training process, and is
left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from tutelage.devices.batch import change_inputs, named, placed, repeat_rows
from tutelage.devices.cost import Cost, ModelCost
from tutelage.devices.fingerprint import describe_device
from tutelage.devices.latency import Rounds, measure
from tutelage.devices.onnx_process import Feed, OnnxProcess
from tutelage.devices.runtime import onnx_providers
from tutelage.devices.samples import kept
from tutelage.devices.size import Size, size_of, size_of_onnx
from tutelage.devices.statistics import latency_of, ratios_of
from tutelage.devices.target import Target
from tutelage.devices.threads import limited_threads
from tutelage.errors import UserError
from tutelage.signals import Inputs, call

__all__ = ["InProcess", "ModelForms", "OnnxCalls", "call_seconds", "measure_cost"]


@dataclass(frozen=True, kw_only=True)
class OnnxCalls:
    """How an ONNX file is called that does not take the student's inputs as they are.

    Attributes:
        feeds: Arrays by the graph's names of its inputs, in one call or several, for the inputs of a batch.
        outputs: The outputs that are asked for.
    """

    feeds: Callable[[Inputs], list[Feed]]
    outputs: list[str]


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """A model that is called in this process, on the CPU.

    Attributes:
        form: What is compared; models of one form are timed in the same rounds.
        about: What is in a call.
        call: For a number of rows, a call that answers them.
        modules: The torch modules that it runs.
    """

    form: str
    about: str
    call: Callable[[int], Callable[[], object]]
    modules: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelForms:
    """A model in the forms it can run in.

    Attributes:
        module: The live torch module, on any device, in any mode; it is put back as it was.
        onnx: Its ONNX file.
        calls: How the file is called; None: with the inputs by their names, all outputs.
        in_process: The model as it is called in this process.
        size: Its size, for a model without a module; by default it is counted.
    """

    module: nn.Module | None = None
    onnx: Path | None = None
    calls: OnnxCalls | None = None
    in_process: InProcess | None = None
    size: Size | None = None

    def measured_size(self) -> Size:
        """The given size, or that of the module, or that of the ONNX file.

        Raises:
            UserError: There is none of them.
        """
        if self.size is not None:
            return self.size
        if self.module is not None:
            return size_of(self.module)
        if self.onnx is not None:
            return size_of_onnx(self.onnx)
        raise UserError("measuring a model", expected="a module or an ONNX file", found="neither")

    @property
    def runs(self) -> bool:
        """Whether there is a form that can be called."""
        return self.module is not None or self.onnx is not None or self.in_process is not None


@dataclass(frozen=True)
class _How:
    """What is measured with: real rows (as many as the largest batch), where, and for `seconds` a batch size.

    `judged` are the calls of each model that a judgement takes, by batch size.
    """

    batch: Inputs
    target: Target
    sizes: Sequence[int]
    rounds: int
    seconds: float
    judged: Mapping[int, Mapping[str, int]]


@dataclass
class _Found:
    """All rounds so far, by form and batch size, and the peak memory by model and form."""

    timed: dict[tuple[str, int], Rounds] = field(default_factory=dict)
    contention: dict[str, int] = field(default_factory=lambda: {"contaminated": 0, "repeated": 0, "kept": 0})
    memory: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, form: str, rows: int, timed: Rounds) -> None:
        self.timed[form, rows] = timed
        self.contention["contaminated"] += timed.contaminated
        self.contention["repeated"] += timed.repeated
        self.contention["kept"] += timed.kept

    def model(self, name: str, size: Size) -> ModelCost:
        return ModelCost(
            name=name,
            parameters=size.parameters,
            embedding_parameters=size.embedding_parameters,
            size_bytes=size.size_bytes,
            peak_memory_bytes=self.memory.get(name, {}),
            latencies=[
                latency_of(form, rows, kept(timed.samples_ms[name]), timed.cpu_ms.get(name, ()))
                for (form, rows), timed in self.timed.items()
                if name in timed.samples_ms
            ],
        )


def measure_cost(
    models: Mapping[str, ModelForms],
    inputs: Inputs,
    *,
    device: str = "cpu:1",
    batch_sizes: Sequence[int] = (1, 32),
    rounds: int = 10,
    seconds: float = 14.0,
    judged: Mapping[int, int] | None = None,
) -> Cost:
    """Measures models on a device, in alternating rounds.

    Args:
        models: By name; when there is a `teacher` and a `student`, the ratio of their latencies is given. One without
            a form (a teacher that is elsewhere) is left out.
        inputs: A batch of real rows, padded as they are served; rows are repeated or cut to each batch size.
        device: `cpu:N` (N threads), `cpu` (all cores) or `cuda:N`.
        batch_sizes: Rows in a call.
        rounds: Alternating rounds for each form and batch size.
        seconds: About how long all timing may take; starting processes comes on top.
        judged: The calls of the student that a judgement takes, by batch size (0: rounds alone, for the ratio to the
            teacher). They may take up to ten times their part of `seconds`.

    Returns:
        The cost, with every sample. A form that the device can't run (ONNX Runtime without CUDA) is left out.

    Raises:
        UserError: The device, a batch size or the number of rounds is impossible, or no model has a form.
        RunError: The worker process failed; the message has its last words.
    """
    target = Target.parse(device)
    sizes = sorted(set(batch_sizes))
    _require_positive("batch sizes", sizes)
    _require_positive("rounds", [rounds])
    models = {name: forms for name, forms in models.items() if forms.runs}
    if not models:
        raise UserError("measuring", expected="a model with a module or an ONNX file", found="none")
    counted = {name: forms.measured_size() for name, forms in models.items()}
    fingerprint = describe_device(target)
    batch = repeat_rows(inputs, max(sizes))
    modules = {name: forms.module for name, forms in models.items() if forms.module is not None}
    files = {name: forms for name, forms in models.items() if forms.onnx is not None}
    if files and not onnx_providers(target):
        files = {}
    here = {name: forms.in_process for name, forms in models.items() if forms.in_process is not None}
    each = seconds / max(1, len(sizes) * (bool(modules) + bool(files) + bool(here)))
    found = _Found()
    wanted = {rows: {"student": calls} for rows, calls in (judged or {}).items()}
    how = _How(batch, target, sizes, rounds=rounds, seconds=each, judged=wanted)
    if modules:
        _measure_torch(found, modules, how)
    if files:
        _measure_onnx(found, files, how)
    if here:
        _measure_in_process(found, here, how)
    costs = {name: found.model(name, size) for name, size in counted.items()}
    ratios, cpu_ratios = ratios_of(costs)
    return Cost(
        device=fingerprint,
        rounds=rounds,
        models=costs,
        ratios=ratios,
        cpu_ratios=cpu_ratios,
        contention=found.contention,
        disturbed={f"{form}/{rows}": timed.kept for (form, rows), timed in found.timed.items()},
        inputs={name: [None, *tensor.shape[1:]] for name, tensor in named(batch).items()},
        forms={model.form: model.about for model in here.values()},
    )


def _measure_torch(found: _Found, modules: Mapping[str, nn.Module], how: _How) -> None:
    """The eager modules, in this process."""
    with _torch_on(how.target, modules):
        for rows in how.sizes:
            found.add("torch", rows, _torch_latency(modules, rows, how))
    if how.target.kind == "cuda":
        for name, module in modules.items():
            found.memory.setdefault(name, {})["torch"] = _cuda_peak(module, how.batch, how.target)


def _measure_onnx(found: _Found, models: Mapping[str, ModelForms], how: _How) -> None:
    """The ONNX files, in a process of their own."""
    files = {name: forms.onnx for name, forms in models.items() if forms.onnx is not None}
    own = {name: forms.calls for name, forms in models.items() if forms.calls is not None}
    with OnnxProcess(how.batch, how.target) as process:
        for name, calls in own.items():
            feeds = {rows: calls.feeds(repeat_rows(how.batch, rows)) for rows in how.sizes}
            process.call_with(name, feeds, calls.outputs)
        timings = process.latency(files, how.sizes, rounds=how.rounds, seconds=how.seconds, judged=how.judged)
        for rows, timed in timings:
            found.add("onnxruntime", rows, timed)
        for name, path in files.items():
            found.memory.setdefault(name, {})["onnxruntime"] = process.peak_memory(name, path, max(how.sizes))


def _measure_in_process(found: _Found, models: Mapping[str, InProcess], how: _How) -> None:
    """The models that are called here, all of one form, with the device's number of threads."""
    modules = {str(id(module)): module for model in models.values() for module in model.modules}
    with _torch_on(how.target, modules), limited_threads(how.target.threads):
        for rows in how.sizes:
            calls = {name: model.call(rows) for name, model in models.items()}
            (form,) = {model.form for model in models.values()}
            # The teacher may do something else than compute on its one thread: wait for a process of its own.
            computing = how.target.computing(["student"])
            found.add(form, rows, _timed(calls, rows, how, computing))


def _require_positive(key: str, numbers: Sequence[int]) -> None:
    if not numbers or min(numbers) < 1:
        raise UserError(key, expected="whole numbers of at least 1", found=str(list(numbers)))


@contextmanager
def _torch_on(target: Target, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Modules ready to answer on the target, torch with its number of threads; afterwards all is as it was."""
    threads = torch.get_num_threads()
    try:
        if target.kind == "cpu":
            torch.set_num_threads(target.threads)
        with placed(modules.values(), target.torch_name), torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def _timed(
    calls: Mapping[str, Callable[[], object]], rows: int, how: _How, computing: Collection[str] | None
) -> Rounds:
    return measure(calls, rounds=how.rounds, seconds=how.seconds, judged=how.judged.get(rows), computing=computing)


def _torch_latency(modules: Mapping[str, nn.Module], rows: int, how: _How) -> Rounds:
    inputs = change_inputs(repeat_rows(how.batch, rows), lambda tensor: tensor.to(how.target.torch_name))
    candidates = {name: _eager(module, inputs, how.target) for name, module in modules.items()}
    return _timed(candidates, rows, how, how.target.computing(candidates))


def call_seconds(module: nn.Module, inputs: Inputs, rows: int, target: Target) -> float:
    """About how long the eager module takes for so many rows, in seconds: one call, after a first that may set up."""
    with _torch_on(target, {"model": module}):
        run = _eager(module, change_inputs(repeat_rows(inputs, rows), lambda x: x.to(target.torch_name)), target)
        run()
        start = time.perf_counter()
        run()
        return time.perf_counter() - start


def _eager(module: nn.Module, inputs: Inputs, target: Target) -> Callable[[], object]:
    if target.kind == "cpu":
        return lambda: call(module, inputs)

    def run_to_the_end() -> object:
        result = call(module, inputs)
        torch.cuda.synchronize(target.index)
        return result

    return run_to_the_end


def _cuda_peak(module: nn.Module, batch: Inputs, target: Target) -> int:
    """Weights, inputs and the most that one forward pass adds to them, in the allocator's bytes."""
    with _torch_on(target, {"model": module}):
        weights = sum(tensor.numel() * tensor.element_size() for tensor in {*module.parameters(), *module.buffers()})
        torch.cuda.synchronize(target.index)
        torch.cuda.reset_peak_memory_stats(target.index)
        before = torch.cuda.memory_allocated(target.index)
        call(module, change_inputs(batch, lambda tensor: tensor.to(target.torch_name)))
        torch.cuda.synchronize(target.index)
        return weights + torch.cuda.max_memory_allocated(target.index) - before
