"""Answers stored in a loop of one's own: rows have no numbers, and are told apart by their content alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cached_case import CPU, OUTPUT, Exact, Wide, cached, fill, module_of
from torch import Tensor, nn

from tutelage.cache import manifest, shards
from tutelage.errors import CacheError, ModelError, RecipeError, RunError, SignalError
from tutelage.signals import Batch, Request
from tutelage.teachers import Cached, ModuleTeacher

INNER = Request(output=True, features=frozenset({"inner"}))


def teacher(folder: Path, module: nn.Module | None = None, **settings: object) -> Cached:
    return Cached(ModuleTeacher(module or Wide()), str(folder), **{"features": "float32", **settings})  # type: ignore[arg-type]


def pictures(count: int) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(3))


def truth(inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return Wide()(inputs)


def epoch(told: Cached, inputs: Tensor, seed: int, size: int = 7) -> None:
    """Every row once, in some order; each answer is bit for bit that of the network."""
    for rows in torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed)).split(size):
        found = told.ask(inputs[rows], OUTPUT).output
        assert found is not None
        torch.testing.assert_close(found, truth(inputs[rows]), rtol=0, atol=0)


def test_each_row_is_asked_once_over_epochs_processes_and_repetitions_in_a_batch(tmp_path: Path) -> None:
    inputs = pictures(50)
    told = teacher(tmp_path / "cache", shard_rows=16)
    told.ask(inputs[[3, 3, 4, 3]], OUTPUT)
    assert module_of(told).asked == 2
    epoch(told, inputs, 0)
    epoch(told, inputs, 1)
    assert module_of(told).asked == 50
    again = teacher(tmp_path / "cache", shard_rows=16)
    epoch(again, inputs, 2)
    assert module_of(again).asked == 0
    epoch(again, inputs + 1, 3)  # the same rows in another view are others
    assert module_of(again).asked == 50


def test_rows_asked_one_by_one_do_not_leave_a_file_each(tmp_path: Path) -> None:
    inputs = pictures(40)
    told = teacher(tmp_path / "cache", shard_rows=8)
    for i in range(40):
        told.ask(inputs[i : i + 1], OUTPUT)
    files = list((tmp_path / "cache").glob("answers-*.arrow"))
    assert len(files) <= 40 // 8 + 4, len(files)
    epoch(told, inputs, 0)
    assert module_of(told).asked == 40


def test_two_loops_that_fill_one_folder_in_turn_never_get_each_others_rows(tmp_path: Path) -> None:
    inputs = pictures(60)
    one, two = teacher(tmp_path / "cache"), teacher(tmp_path / "cache")
    for start in range(0, 30, 5):
        for told, at in ((one, start), (two, start + 30)):
            found = told.ask(inputs[at : at + 5], OUTPUT).output
            torch.testing.assert_close(found, truth(inputs[at : at + 5]), rtol=0, atol=0)
    epoch(one, inputs, 0)
    epoch(two, inputs, 1)


def test_a_folder_some_of_whose_files_are_removed_under_a_loop_never_gives_a_number_to_two_rows(tmp_path: Path) -> None:
    inputs = pictures(40)
    one = teacher(tmp_path / "cache", shard_rows=8)
    one.ask(inputs[:8], OUTPUT)
    one.ask(inputs[8:16], OUTPUT)
    newest = one.ask(inputs[16:24], OUTPUT)
    assert newest.output is not None and one._contents is not None
    last = next(
        name for name in one._contents.store.manifest.shards if 20 in one._contents.store.reader.shard(name).rows
    )
    (tmp_path / "cache" / last).unlink()
    epoch(teacher(tmp_path / "cache", shard_rows=8), inputs[24:], 0)  # gets the numbers that were free again
    epoch(one, inputs, 1, size=5)


@pytest.mark.parametrize("at", range(1, 12, 2))
def test_a_kill_at_any_file_that_is_written_or_removed_loses_and_mixes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    inputs, left = pictures(24), [at]
    real_write, real_unlink = shards.write_file, Path.unlink

    def killed(act: object) -> object:
        def run(*args: object, **settings: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return act(*args, **settings)  # type: ignore[operator]

        return run

    told = teacher(tmp_path / "cache", shard_rows=16)
    with monkeypatch.context() as patch:
        for module in (shards, manifest):
            patch.setattr(module, "write_file", killed(real_write))
        patch.setattr(Path, "unlink", killed(real_unlink))
        with pytest.raises(KeyboardInterrupt):
            for start in range(0, 24, 4):
                told.ask(inputs[start : start + 4], OUTPUT)
    answered = module_of(told).asked
    again = teacher(tmp_path / "cache", shard_rows=16)
    epoch(again, inputs, 0)
    assert module_of(again).asked <= 24 - answered + 4  # at most the question in hand is asked again
    epoch(teacher(tmp_path / "cache"), inputs, 1)


class Reads(nn.Module):
    """A model of texts: a state for each token, and an answer of two numbers. Further inputs count."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.inner = Exact(4, 4)
        self.head = Exact(4, 2)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            for weight in self.parameters():
                weight.normal_()
        self.asked = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, kind: Tensor | None = None) -> Tensor:
        self.asked += len(input_ids)
        shown = attention_mask[..., None].double()
        at = torch.arange(1, input_ids.shape[1] + 1)[None, :, None].double()
        states = self.inner(self.embedding(input_ids.long()).double() * at)
        answer = self.head((states * shown).sum(1) / shown.sum(1))
        return answer if kind is None else answer + kind.double().sum(1, keepdim=True).float()


def padded(texts: list[list[int]], width: int, filling: int = 0, left: bool = False) -> dict[str, Tensor]:
    rows = [[filling] * (width - len(t)) + t if left else t + [filling] * (width - len(t)) for t in texts]
    shown = [[0] * (width - len(t)) + [1] * len(t) if left else [1] * len(t) + [0] * (width - len(t)) for t in texts]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(shown)}


TEXTS = [[5, 6], [5, 6, 7], [1, 2, 3, 4, 5], [5, 6, 0], [6, 5]]


@pytest.mark.parametrize("wanted", [OUTPUT, INNER])
def test_a_text_is_asked_once_whatever_it_is_padded_to_and_gets_its_own_tokens(tmp_path: Path, wanted: Request) -> None:
    told, seen = teacher(tmp_path / "cache", Reads(), shard_rows=4), Reads()
    for texts, width, filling in ((TEXTS, 5, 0), (TEXTS[:2], 3, 9), (TEXTS[::-1], 8, 1), (TEXTS[1:2], 4, 0)):
        inputs = padded(texts, width, filling)
        found = told.ask(inputs, wanted)
        torch.testing.assert_close(found.output, seen(**inputs).detach(), rtol=0, atol=1e-6)
        if "inner" in found.features:
            at = torch.arange(1, width + 1)[None, :, None]
            states = seen.inner(seen.embedding(inputs["input_ids"]).double() * at).detach()
            torch.testing.assert_close(found.features["inner"], states * inputs["attention_mask"][..., None])
    module = told.module
    assert isinstance(module, Reads) and module.asked == len(TEXTS)


def test_rows_that_differ_in_anything_the_teacher_may_read_are_different_rows(tmp_path: Path) -> None:
    """Each is asked although another, nearly the same, is stored."""
    right, told = padded(TEXTS[:1], 4), teacher(tmp_path / "cache", Reads())
    others = [
        right,
        padded(TEXTS[:1], 4, left=True),  # its tokens are at other positions
        right | {"attention_mask": torch.tensor([[0, 1, 0, 0]])},
        right | {"input_ids": right["input_ids"].int()},
        right | {"kind": torch.tensor([[1, 1, 5, 5]])},  # as wide as the text, and no part of it
        right | {"kind": torch.tensor([[1, 1, 7, 7]])},
        right | {"kind": torch.tensor([[1, 1, 7, 7, 0]])},
        right | {"kind": torch.tensor([[1.0, 1.0, 7.0, 7.0]])},
    ]
    seen = Reads()
    for round in (1, 2):
        for inputs in others:
            torch.testing.assert_close(told.ask(inputs, OUTPUT).output, seen(**inputs).detach(), rtol=0, atol=1e-6)
        module = told.module
        assert isinstance(module, Reads) and module.asked == len(others), round
    text = Batch.of(right)
    raw = [np.array([cell], dtype=object) for cell in ("1", 1, 1.0, ["1"])]
    for cell in raw:  # a teacher may read the columns
        told.ask(Batch(**{**vars(text), "raw": lambda cell=cell: {"text": cell}}), OUTPUT)
    assert module.asked == len(others) + len(raw)


def test_tensors_whose_bytes_agree_and_whose_shape_does_not_are_different_rows(tmp_path: Path) -> None:
    class Shapes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1), torch.full((len(x),), float(x.shape[1]))], dim=1)

    told, x = teacher(tmp_path / "cache", Shapes()), torch.arange(12.0)
    for shape in ((1, 3, 4), (1, 4, 3), (1, 2, 6)):
        found = told.ask(x.reshape(shape), OUTPUT).output
        assert found is not None and found.tolist() == [[66.0, float(shape[1])]]


@pytest.mark.parametrize("write", ["optimiser", "data", "reload"])
def test_a_teacher_whose_weights_are_changed_never_gets_the_answers_of_before(tmp_path: Path, write: str) -> None:
    module, inputs = Wide(), pictures(6)
    told = teacher(tmp_path / "cache", module)
    told.ask(inputs, OUTPUT)
    if write == "optimiser":
        module(inputs).sum().backward()
        torch.optim.SGD(module.parameters(), lr=0.1).step()
    elif write == "data":  # as averages of weights are often made
        for weight in module.parameters():
            weight.data.mul_(0.9)
    else:
        module.load_state_dict(Wide(seed=1).state_dict())
    with pytest.raises(CacheError, match=r"answers of another.*stale"):
        told.ask(inputs, OUTPUT)
    with pytest.raises(CacheError, match=r"answers of another.*stale"):
        teacher(tmp_path / "cache", Wide(seed=2)).ask(inputs, OUTPUT)


def test_the_cache_of_a_run_and_that_of_a_loop_are_not_taken_for_each_other(tmp_path: Path) -> None:
    run = cached(tmp_path / "run")
    fill(run)
    with pytest.raises(CacheError, match="answers about others"):
        teacher(tmp_path / "run").ask(pictures(3), OUTPUT)
    teacher(tmp_path / "loop").ask(pictures(3), OUTPUT)
    with pytest.raises(CacheError, match="answers about others"):
        cached(tmp_path / "loop")


def test_what_can_not_be_stored_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"(?s)an entry for each of the 3 rows.*\[2, 2\]"):
        teacher(tmp_path / "a").ask({"x": torch.ones(3, 2), "table": torch.ones(2, 2)}, OUTPUT)
    with pytest.raises(RecipeError, match="low_rank"):
        teacher(tmp_path / "b", features="low_rank").ask(pictures(3), INNER)
    assert not (tmp_path / "b").exists()


def test_a_further_signal_is_stored_beside_those_that_are(tmp_path: Path) -> None:
    told, inputs = teacher(tmp_path / "cache"), pictures(9)
    told.ask(inputs[:6], OUTPUT)
    for wanted, asked in ((INNER, 15), (OUTPUT, 15), (INNER, 15)):
        found = told.ask(inputs, wanted)
        torch.testing.assert_close(found.output, truth(inputs), rtol=0, atol=0)
        assert module_of(told).asked == asked
    states = Wide().inner(inputs).detach()
    torch.testing.assert_close(told.ask(inputs, INNER).features["inner"], states, rtol=0, atol=0)


def test_a_lazy_teacher_is_not_loaded_in_a_second_process(tmp_path: Path) -> None:
    def lazy() -> Cached:
        return Cached(ModuleTeacher(Wide), str(tmp_path / "cache"), lazy=True)

    inputs = pictures(6)
    lazy().ask(inputs[:5], OUTPUT)
    second = lazy()
    torch.testing.assert_close(second.ask(inputs[:5], OUTPUT).output, truth(inputs[:5]), rtol=0, atol=0)
    assert second.teacher.module is None
    second.ask(inputs, OUTPUT)
    assert module_of(second).asked == 1


def test_a_full_disk_is_said_and_the_loop_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    told, inputs = teacher(tmp_path / "cache"), pictures(8)
    told.load(CPU)
    told.ask(inputs[:4], OUTPUT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            told.ask(inputs, OUTPUT)
    epoch(told, inputs, 0)


@pytest.mark.parametrize("inputs", [torch.tensor(1.0), torch.zeros(0, 5), {}, {"x": torch.zeros(0, 5)}])
def test_inputs_without_a_row_are_refused_by_name(tmp_path: Path, inputs: Tensor | dict[str, Tensor]) -> None:
    with pytest.raises(SignalError, match="at least one row"):
        teacher(tmp_path).ask(inputs, OUTPUT)
