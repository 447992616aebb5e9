"""The forms in which a teacher that is no torch module is timed beside the student.

An ONNX file that reads the student's tensors is timed as the student's own file is. Any other teacher of this machine
is timed in this process, as it is asked, beside the student's eager module. Where it reads the columns as the source
has them, both begin with those: what the teacher's library makes of them, and what the student's encoder makes of them,
is work that a server does for every row, and is in both times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tutelage.devices.batch import named, placed
from tutelage.devices.cost import FROM_RAW, FROM_TENSORS
from tutelage.devices.measure import InProcess, ModelForms, OnnxCalls
from tutelage.devices.runtime import onnx_providers
from tutelage.devices.size import Size, size_of, size_of_onnx
from tutelage.devices.target import Target
from tutelage.errors import UserError
from tutelage.signals import Batch, Inputs, call
from tutelage.teachers import Teacher, uncached
from tutelage.teachers.served import GraphFile, Served

__all__ = ["Timed", "served_beside", "timed_forms"]

Array = np.ndarray[Any, Any]
Encode = Callable[[Mapping[str, Array]], Inputs]

WHAT = {
    FROM_RAW: "in this process, from the columns of the rows as the source has them to the answer: the teacher "
    "({teacher}) as it is asked, with what its library makes of the columns; the student as an eager torch module, "
    "with its encoding of the columns",
    FROM_TENSORS: "in this process, from the student's input tensors to the answer: the teacher ({teacher}) as it is "
    "asked, with its conversion of the tensors; the student as an eager torch module",
}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """The forms of teacher and student, and what the user should know of them."""

    models: dict[str, ModelForms]
    notes: tuple[str, ...] = ()


def timed_forms(teacher: Teacher, target: Target, *, onnx: bool) -> tuple[str, ...]:
    """The forms in which a loaded teacher can be timed beside the student; none for one whose time is elsewhere.

    Args:
        teacher: The teacher.
        target: Where.
        onnx: Whether the student is exported.
    """
    onnx = onnx and bool(onnx_providers(target))
    if teacher.as_module() is not None:
        return ("torch", "onnxruntime") if onnx else ("torch",)
    served = teacher.served()
    if served is None:
        return ()
    if served.graph is not None and onnx:
        return ("onnxruntime",)
    return (_form(served),) if target.kind == "cpu" else ()


def served_beside(teacher: Teacher, student: ModelForms, *, batch: Batch, encode: Encode, target: Target) -> Timed:
    """The forms of a teacher that is no torch module, and those of the student beside it.

    A form in which the teacher does not run is left out, and a note says so.

    Args:
        teacher: As it is after the run.
        student: Its module, and its file if it is exported.
        batch: Real rows, begun again where there are fewer than a call takes.
        encode: Makes the student's inputs of raw columns.
        target: Where.
    """
    forms = timed_forms(teacher, target, onnx=student.onnx is not None)
    served = teacher.served()
    if served is None or not forms:
        where = "its time is not this machine's" if served is None else f"its library does not run on {target.name}"
        return Timed(models={"student": student}, notes=(f"the teacher was not timed: {where}",))
    try:
        if served.graph is not None and forms == ("onnxruntime",):
            models = {"teacher": _file(served, served.graph, batch), "student": student}
        else:
            about = WHAT[_form(served)].format(teacher=uncached(teacher).describe())
            models = _in_process(served, student, about=about, batch=batch, encode=encode, threads=target.threads)
    except UserError as error:
        return Timed(models={"student": student}, notes=(f"the teacher was not timed: {error}",))
    return Timed(models=models)


def _form(served: Served) -> str:
    return FROM_RAW if "raw" in served.reads else FROM_TENSORS


def _size(served: Served) -> Size:
    """Of files and modules; the parameters are known of modules and graphs alone."""
    counted = [size_of(module) for module in served.modules]
    if served.files is None or not (served.files or counted):
        return Size(parameters=None, embedding_parameters=None, size_bytes=None)
    size = sum(file.stat().st_size for file in served.files) + sum(each.size_bytes or 0 for each in counted)
    if served.graph is not None:
        return replace(size_of_onnx(served.graph.path), size_bytes=size)
    if served.files:
        return Size(parameters=None, embedding_parameters=None, size_bytes=size)
    return Size(
        parameters=sum(each.parameters or 0 for each in counted),
        embedding_parameters=sum(each.embedding_parameters or 0 for each in counted),
        size_bytes=size,
    )


def _file(served: Served, graph: GraphFile, batch: Batch) -> ModelForms:
    """The teacher's own file, called with its own inputs."""
    graph.feeds(batch)  # what does not fit is found now

    def feeds(inputs: Inputs) -> list[dict[str, Array]]:
        rows = -1 - torch.arange(len(next(iter(named(inputs).values()))))  # of no transfer set
        return graph.feeds(Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows)))

    return ModelForms(onnx=graph.path, calls=OnnxCalls(feeds=feeds, outputs=[graph.output]), size=_size(served))


def _in_process(
    served: Served, student: ModelForms, *, about: str, batch: Batch, encode: Encode, threads: int
) -> dict[str, ModelForms]:
    """Teacher and student as they are called here."""
    form, ask, module = _form(served), served.open(threads), student.module
    assert module is not None
    columns = batch.raw() if batch.raw is not None and form == FROM_RAW else {}

    def rows_of(count: int) -> tuple[Batch, dict[str, Array]]:
        """So many rows, and their columns."""
        some = {name: cells[np.arange(count) % len(batch)] for name, cells in columns.items()}
        rows = batch.map(lambda tensor: tensor[torch.arange(count) % len(batch)])
        return replace(rows, raw=(lambda: some) if columns else None), some

    def teacher_call(count: int) -> Callable[[], object]:
        rows, some = rows_of(count)
        if served.reads == {"raw", "inputs"}:
            return lambda: ask(replace(rows, inputs=encode(some)))
        return lambda: ask(rows)

    def student_call(count: int) -> Callable[[], object]:
        rows, some = rows_of(count)
        return (lambda: call(module, encode(some))) if form == FROM_RAW else lambda: call(module, rows.inputs)

    with placed(served.modules, "cpu"), torch.no_grad():
        teacher_call(len(batch))()  # what does not run is found now
    teacher = InProcess(form=form, about=about, call=teacher_call, modules=served.modules)
    beside = InProcess(form=form, about=about, call=student_call, modules=(module,))
    return {
        "teacher": ModelForms(in_process=teacher, size=_size(served)),
        "student": replace(student, in_process=beside),
    }
