"""Bundles of every kind, written once for all tests of the report, and the browser they are opened in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from synthetic_bundle import write_bundle

from tutelage.report import write_report

CASES = {
    "classification-pass": {"kind": "classification", "seeds": 3},
    "classification-fail": {"kind": "classification", "outcome": "FAIL"},
    "embedding-pass": {"kind": "embedding"},
    "regression-inconclusive": {"kind": "regression", "outcome": "INCONCLUSIVE"},
}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundle folders by name, each with its page."""
    root = tmp_path_factory.mktemp("bundles")
    folders = {name: write_bundle(root / name, rows=1200, **case) for name, case in CASES.items()}  # type: ignore[arg-type]
    # Nothing but a verdict: each section has to say what it lacks.
    bare = root / "verdict-only"
    bare.mkdir()
    shutil.copy(folders["classification-fail"] / "verdict.json", bare)
    folders["verdict-only"] = bare
    for folder in folders.values():
        write_report(folder)
    return folders


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle to copy from."""
    return write_bundle(tmp_path_factory.mktemp("pristine") / "bundle", rows=300)


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return shutil.copytree(pristine, tmp_path / "bundle")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; its absence is a failure, not a skip."""
    opened = Browser.open(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
