"""What a history says of a training that was resumed: the same as of one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small import job

from tutelage.training import Training
from tutelage.training.checkpoint import latest_step
from tutelage.training.loop import StepRecord, fit


@pytest.mark.parametrize("at", [3, 4])
def test_a_record_that_leaves_out_the_steps_before_a_resume_is_caught(tmp_path: Path, at: int) -> None:
    """A checkpoint between two records: the mean over the next record's steps has those before the kill, too."""
    training = Training(steps=9, batch_size=8, learning_rate=0.02, log_every=5, checkpoint_seconds=1e9)
    whole = [record for record in fit(job(tmp_path / "whole", training, steps=9)) if isinstance(record, StepRecord)]
    cut = tmp_path / "cut"
    every = replace(training, checkpoint_seconds=0.0)
    run = job(cut, every, steps=9)
    made = run.make_batch
    calls = [0]

    def dies(rows, views):  # type: ignore[no-untyped-def]
        if calls[0] == at:
            raise KeyboardInterrupt
        calls[0] += 1
        return made(rows, views)

    run.make_batch = dies
    with pytest.raises(KeyboardInterrupt):
        list(fit(run))
    assert latest_step(cut) == at
    after = [record for record in fit(job(cut, every, steps=9)) if isinstance(record, StepRecord)]
    assert [record.step for record in after] == [5, 9]
    for found, expected in zip(after, whole, strict=True):
        assert replace(found, samples_per_second=0.0) == replace(expected, samples_per_second=0.0)
    by_steps = list(fit(job(tmp_path / "each", replace(training, log_every=1), steps=9)))
    mean = sum(record.loss for record in by_steps[:5] if isinstance(record, StepRecord)) / 5
    assert after[0].loss == pytest.approx(mean, rel=1e-6)  # the mean of five steps, of which the resumed run made few
