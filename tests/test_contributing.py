"""The new loss that CONTRIBUTING.md shows is one: it passes the contract suite as it stands on the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tutelage.losses import all_losses

ROOT = Path(__file__).parent.parent
SUITES = [f"tests/contracts/test_{name}.py" for name in ("losses", "loss_rows", "loss_slopes")]
PLUGIN = """
import sys
from pathlib import Path

import tutelage.losses

here = str(Path(__file__).parent)
tutelage.losses.__path__.append(here)
sys.path.insert(0, str(Path(__file__).parent / "tests"))
"""


def test_loss_of_the_page_passes_the_contract_suite(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    loss, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (name,) = re.findall(r"^class (\w+)\(", loss, re.MULTILINE)
    (module,) = re.findall(r"^from tutelage\.losses\.(\w+) import " + name, test, re.MULTILINE)
    assert name not in all_losses(), "the page is to show a loss that the package does not have"
    assert f"class_path: tutelage.losses.{name}" in text
    (tmp_path / "tests").mkdir()
    (tmp_path / f"{module}.py").write_text(loss)
    (tmp_path / "tests" / f"test_{module}.py").write_text(test)
    (tmp_path / "shown_on_the_page.py").write_text(PLUGIN)
    paths = [str(tmp_path), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = ["-p", "shown_on_the_page", "-p", "no:cacheprovider", "-v"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *SUITES, "-k", name],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TestCase::test_runs_whole_under_torch_compile" in done.stdout, "no case of it was run"
