"""Makes small samples of every file that outlives a version: `python tests/old/make.py tests/old/VERSION`.

Run it with the version whose files are to be kept, and commit the folder as it is: `test_old.py` reads each with the
code of the day. Samples are not made again; a version that writes something new adds a folder beside the others.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", LETTERS_KEY="none")
sys.path[:0] = [str(Path(__file__).parents[1] / "ledger"), str(Path(__file__).parents[1] / "checks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from local_server import NAMES, letter_model, serving  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from text_folders import WORDS, bert  # noqa: E402

from tutelage.cli import main  # noqa: E402

NETWORKS = '''"""Networks of the samples."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Numbers to logits by one hidden layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).relu())


class Bag(nn.Module):
    """The mean of the words' embeddings, and a linear layer."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(words, 8), nn.Linear(8, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        counts = attention_mask[..., None].float()
        return self.head((self.words(input_ids) * counts).sum(1) / counts.sum(1).clamp(min=1))


def price(columns: dict[str, np.ndarray]) -> np.ndarray:
    """A rule on the rows of a table."""
    return 3e4 * columns["size"] + np.where(columns["colour"] == "red", 5e4, 0.0) + 2e5
'''


def student(hidden: int, outputs: int = 3) -> dict[str, object]:
    return {"class_path": "networks.Perceptron", "init_args": {"inputs": 4, "hidden": hidden, "outputs": outputs}}


TEACHER = {"class_path": "ModuleTeacher", "init_args": {"module": student(32), "weights": "teacher.safetensors"}}
ROWS = {"class_path": "Table", "init_args": {"path": "rows.csv", "inputs": ["a", "b", "c", "d"], "label": "kind"}}
SHORT = {"steps": 60, "batch_size": 32, "learning_rate": 5e-2}
COMMON = {
    "measure": {"device": "cpu:1", "batch_sizes": [1], "rounds": 3, "seconds": 0.2},
    "policy": [{"metric": "agreement", "at_least": 0.5}],
}
MODULE = COMMON | {
    "name": "module",
    "task": "classification",
    "data": {"source": ROWS},
    "teacher": TEACHER,
    "student": {"class_path": "ModuleStudent", "init_args": {"module": student(8)}},
    "losses": [
        {"class_path": "KLDivergence", "init_args": {"temperature": 2.0}},
        {"class_path": "Hint", "init_args": {"pairs": {"hidden": "hidden"}, "weight": 0.1}},
    ],
    "training": SHORT,
    "budget": {"size_mb": 1.0},
}
SENTENCES = {"class_path": "Table", "init_args": {"path": "texts.csv", "text": "text"}}
CUT = COMMON | {
    "name": "hugging_face",
    "task": "classification",
    "data": {"source": SENTENCES},
    "teacher": {"class_path": "HuggingFaceTeacher", "init_args": {"path": "bert"}},
    "licences": {"teacher": {"use": "allowed", "basis": "own work", "date": "2026-11-30"}},
    "student": {"class_path": "CutStudent", "init_args": {"layers": [1]}},
    "losses": ["KLDivergence"],
    "training": SHORT,
}
TABLE = COMMON | {
    "name": "table",
    "task": "regression",
    "data": {
        "source": {
            "class_path": "Table",
            "init_args": {"path": "prices.csv", "inputs": ["size"], "categories": ["colour"], "label": "price"},
        },
        "tabular": {},
    },
    "teacher": {
        "class_path": "FunctionTeacher",
        "init_args": {"function": "networks:price", "gives": "values", "reads": "raw"},
    },
    "student": {"class_path": "ModuleStudent", "init_args": {"module": student(8, 1)}},
    "losses": ["MeanSquaredError"],
    "training": SHORT,
    "policy": [{"metric": "r2", "at_least": 0.1}],
}


def cached(name: str, inner: dict[str, object], **settings: object) -> dict[str, object]:
    return {"class_path": "Cached", "init_args": {"teacher": inner, "folder": f"answers-{name}", **settings}}


CACHED = MODULE | {"name": "cached", "teacher": cached("cached", TEACHER, shard_rows=64, features="int8")}
LAZY = TABLE | {"name": "lazy", "teacher": cached("lazy", TABLE["teacher"], lazy=True)}  # type: ignore[arg-type]
KILLED = MODULE | {"name": "killed", "training": {**SHORT, "steps": 400, "checkpoint_seconds": 0.0}}


def chat(url: str) -> dict[str, object]:
    return COMMON | {
        "name": "chat",
        "task": "classification",
        "data": {
            "source": {**SENTENCES, "init_args": {**SENTENCES["init_args"], "label": "kind"}},  # type: ignore[dict-item]
            "text": {"tokenizer": "bert"},
        },
        "teacher": {
            "class_path": "OpenAICompatible",
            "init_args": {
                "url": f"{url}/v1",
                "model": "tiny",
                "prompt": "{text}",
                "ledger": "answers.sqlite",
            },
        },
        "licences": {"teacher": {"use": "allowed", "basis": "a server of these tests", "date": "2026-11-30"}},
        "student": {
            "class_path": "ModuleStudent",
            "init_args": {"module": {"class_path": "networks.Bag", "init_args": {"words": 44, "classes": 3}}},
        },
        "losses": [{"class_path": "KLDivergence", "init_args": {"temperature": 1.0}}],
        "training": SHORT,
    }


def write(name: str, header: list[str], rows: list[tuple[object, ...]]) -> None:
    with Path(name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def inputs() -> None:
    """Rows, networks and teachers of all samples."""
    sys.path.insert(0, ".")
    Path("networks.py").write_text(NETWORKS, encoding="utf-8")
    from networks import Perceptron  # type: ignore[import-not-found]

    random = np.random.default_rng(0)
    torch.manual_seed(0)
    teacher, x = Perceptron(4, 32, 3), random.normal(size=(200, 4)).round(3)
    save_file(teacher.state_dict(), "teacher.safetensors")
    with torch.no_grad():
        kinds = teacher(torch.tensor(x, dtype=torch.float32)).argmax(1).tolist()
    write("rows.csv", ["a", "b", "c", "d", "kind"], [(*row, kind) for row, kind in zip(x.tolist(), kinds, strict=True)])
    sizes, colours = random.uniform(1, 9, 200).round(2), random.choice(["red", "green", "blue"], 200)
    prices = [int(3e4 * size + 5e4 * (colour == "red") + 2e5) for size, colour in zip(sizes, colours, strict=True)]
    write("prices.csv", ["size", "colour", "price"], list(zip(sizes, colours, prices, strict=True)))
    WORDS[4:] = ["".join(word) for word in random.choice(list("abcdefghij"), (40, 4))]
    told = [" ".join(random.choice(WORDS[4:], random.integers(3, 8))) for _ in range(160)]
    write("texts.csv", ["text", "kind"], [(text, sorted(NAMES)[int(letter_model(text).argmax())]) for text in told])
    bert(Path("bert"), 16)


def run(name: str, recipe: dict[str, object]) -> None:
    Path(f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    status = main(["distill", f"{name}.yaml", "--out", f"runs/{name}"])
    if status not in (0, 1, 3):
        raise SystemExit(f"{name} ended with {status}")


def killed() -> None:
    """A run that is killed while its student learns."""
    Path("killed.yaml").write_text(yaml.safe_dump(KILLED, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "tutelage", "distill", "killed.yaml", "--out", "runs/killed"]
    with subprocess.Popen(command, start_new_session=True) as process:
        while process.poll() is None and not list(Path("runs/killed/work").glob("student-0/step-*")):
            time.sleep(0.02)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)


def make(folder: Path) -> None:
    """All samples, in a new folder."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    inputs()
    for name, recipe in (
        ("module", MODULE),
        ("hugging_face", CUT),
        ("table", TABLE),
        ("cached", CACHED),
        ("lazy", LAZY),
    ):
        run(name, recipe)
    with serving() as server:
        run("chat", chat(server.url))
    killed()
    for work in Path("runs").glob("*/work"):  # nothing of it is read again once the bundle is there
        if work.parent.name != "killed":
            shutil.rmtree(work)
    for name in ("cached", "lazy", "chat"):
        shutil.rmtree(Path("runs", name))


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
