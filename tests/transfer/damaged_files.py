"""Reads files with some bytes changed or cut off: `python damaged_files.py FOLDER COUNT [FORMAT]`, a line a format.

It ends with an error where one of them ends in another error than ours.
"""

from __future__ import annotations

import io
import json
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file

from tutelage.errors import UserError
from tutelage.teachers.onnx import OnnxTeacher
from tutelage.teachers.weights import load_weights
from tutelage.transfer import Arrays, ImageFolder, Images, Table, Text

Case = tuple[str, Path, Callable[[], object]]


def cases(folder: Path) -> Iterator[Case]:
    """A sound file of each format, and how it is read."""
    inputs = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    for kind in ("npy", "npz"):
        path = folder / f"x.{kind}"
        np.save(path, inputs) if kind == "npy" else np.savez_compressed(path, inputs=inputs)
        yield kind, path, Arrays(str(path)).load
    texts = [f"text {n}" for n in range(30)]
    table = pa.table({"t": texts, "x": [[1.0, 2.0]] * 30, "y": [0, 1] * 15})
    parquet.write_table(table, folder / "t.parquet")
    yield "parquet", folder / "t.parquet", Table(str(folder / "t.parquet"), "t", inputs=["x"], label="y").load
    for kind in ("png", "gif", "tiff"):
        path = folder / kind / f"0.{kind}"
        path.parent.mkdir()
        frames = [Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) // n) for n in (1, 2, 3)]
        data = io.BytesIO()
        frames[0].save(data, kind, save_all=True, append_images=frames[1:] if kind != "png" else [])
        path.write_bytes(data.getvalue())
        images, size = ImageFolder(str(path.parent)), Images(size=8)
        yield kind, path, lambda images=images, size=size: images.load().columns["image"].digests(size)
    save_file({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, folder / "w.safetensors")
    yield (
        "safetensors",
        folder / "w.safetensors",
        lambda: load_weights(torch.nn.Linear(4, 3), str(folder / "w.safetensors"), "weights"),
    )
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    yield "onnx", folder / "m.onnx", lambda: OnnxTeacher(str(folder / "m.onnx")).load(torch.device("cpu"))
    words = {"a": 0, "b": 1, "[UNK]": 2}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    yield "tokenizer", folder / "tokenizer.json", Text(tokenizer=str(folder)).load


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, or an end cut off."""
    changed = bytearray(data if rng.random() < 0.8 else data[: rng.randrange(1, len(data))])
    for _ in range(rng.randrange(1, 5)):
        changed[rng.randrange(len(changed))] = rng.choice([rng.randrange(256), 0, 255, 127])
    return bytes(changed)


def main(folder: Path, count: int, only: str = "") -> None:
    """Reads each format, whole and then damaged in `count` ways."""
    warnings.simplefilter("ignore")
    for kind, path, read in cases(folder):
        if only in (kind, ""):
            read()
            whole, rng, ended = path.read_bytes(), random.Random(kind), Counter[str]()
            for trial in range(count):
                path.write_bytes(damaged(whole, rng))
                try:
                    read()
                    ended["read"] += 1
                except UserError:
                    ended["refused"] += 1
                except BaseException:
                    print(f"{kind}, damage {trial}", file=sys.stderr, flush=True)
                    raise
            path.write_bytes(whole)
            print(kind, dict(ended), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
