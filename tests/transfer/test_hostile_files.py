"""Files from strangers, whatever they hold: refused by name before memory is taken, and never a crash or a hang."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tutelage.errors import DataError, ModelError
from tutelage.teachers.onnx import OnnxTeacher
from tutelage.teachers.sentence_layout import read_json
from tutelage.transfer import Arrays, HuggingFaceDataset, ImageFolder, Images, Source, Table, Text
from tutelage.transfer.json_depth import JsonDepth


def npy(shape: tuple[int, ...], body: bytes, kind: str = "<f4") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def load_in_little_memory(source: Source, told: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=told):
            source.load()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "told"),
    {
        "more than there is": (npy((10**9, 10), bytes(64)), "40,000,000,000 bytes, and 64 follow"),
        "more than a number holds": (npy((2**40, 2**40), bytes(64)), "64 follow"),
        "below none": (npy((-4, -4), bytes(64)), "64 follow|not valid"),
        "rows of nothing": (npy((10**12, 0), b""), "0 follow"),
        "several in one file": (npy((4,), bytes(16)) * 2, "16 bytes, and"),
        "a long header": (b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b" " * 99, "header of 4,294,967,295 bytes"),
        "a deep header": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, "header"),
    }.values(),
)
def test_an_array_whose_header_says_more_than_the_file_has_takes_no_memory(
    data: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    load_in_little_memory(Arrays(str(tmp_path / "x.npy")), told)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("inputs.npy", data)
    load_in_little_memory(Arrays(str(tmp_path / "x.npz")), told)


def test_a_packed_array_that_unpacks_to_more_than_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, inputs=np.zeros((3_000_000, 1), np.float32))
    assert path.stat().st_size < 20_000
    load_in_little_memory(Arrays(str(path), max_gb=0.01), r"more|0\.012 GB[\s\S]*max_gb")
    assert len(Arrays(str(path), max_gb=0.02).load().columns["inputs"]) == 3_000_000


def test_lists_and_structs_of_parquet_are_counted_with_what_is_in_them(tmp_path: Path) -> None:
    numbers = pa.ListArray.from_arrays(np.arange(0, 10**6 + 1, 1000, dtype=np.int32), np.zeros(10**6, np.float32))
    parquet.write_table(pa.table({"x": numbers, "y": [0, 1] * 500}), tmp_path / "lists.parquet")
    assert (tmp_path / "lists.parquet").stat().st_size < 20_000
    load_in_little_memory(Table(str(tmp_path / "lists.parquet"), inputs=["x"], label="y", max_gb=0.003), "max_gb")
    Table(str(tmp_path / "lists.parquet"), inputs=["x"], label="y", max_gb=0.005).load()
    images = pa.StructArray.from_arrays([pa.array([b"x" * 10**5] * 400), pa.array(["a"] * 400)], ["bytes", "path"])
    parquet.write_table(pa.table({"x": images, "y": [0, 1] * 200}), tmp_path / "structs.parquet")
    load_in_little_memory(Table(str(tmp_path / "structs.parquet"), image="x", label="y", max_gb=0.03), "max_gb")
    Table(str(tmp_path / "structs.parquet"), image="x", label="y", max_gb=0.05).load()


def test_a_bomb_is_refused_by_what_its_beginning_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking a gzip file of some hundred megabytes to its limit takes half a minute."""
    rng, path, packer = random.Random(0), tmp_path / "rows.csv.gz", zlib.compressobj(9, zlib.DEFLATED, 31)
    text = b"t,y\n" + b"a,0\n" * 2**21 + b"".join(b"%x,1\n" % rng.getrandbits(400) for _ in range(20_000))
    path.write_bytes(packer.compress(text) + packer.flush())
    monkeypatch.setattr("tutelage.transfer.file_limits._ENOUGH", 2**22)
    with pytest.raises(DataError, match=r"about 0 GB of text: the first 0\.\d+ GB are packed[\s\S]*max_gb"):
        Table(str(path), text="t", label="y", max_gb=len(text) / 1e9).load()
    assert len(Table(str(path), text="t", label="y", max_gb=1).load().columns["t"]) == 2**21 + 20_000


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def folder_of_images(root: Path, data: bytes) -> ImageFolder:
    for label in "ab":
        (root / label).mkdir()
        Image.new("L", (8, 8), 9).save(root / label / "0.png")
    (root / "a" / "z.png").write_bytes(data)
    return ImageFolder(str(root))


@pytest.mark.parametrize(("size", "told"), [((60_000, 60_000), "3600000000"), ((12_000, 9_000), "12,000 x 9,000")])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    size: tuple[int, int], told: str, tmp_path: Path
) -> None:
    column = folder_of_images(tmp_path, png(*size)).load().columns["image"]
    with pytest.raises(DataError, match=rf"at most 89 million[\s\S]*({told})[\s\S]*max_megapixels in data.images"):
        column.digests(Images(size=8))
    with pytest.raises(DataError, match="can decode"):  # allowed, it is decoded: its pixels are not all there
        folder_of_images_again(tmp_path).digests(Images(size=8, max_megapixels=0.001 * 4_000_000))


def folder_of_images_again(root: Path):  # type: ignore[no-untyped-def]
    (root / "a" / "z.png").write_bytes(png(40, 40)[:60])
    return ImageFolder(str(root)).load().columns["image"]


def test_frames_of_an_image_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, data = [Image.new("L", (8, 8), value) for value in range(50)], io.BytesIO()
    frames[0].save(data, "TIFF", save_all=True, append_images=frames[1:])
    column = folder_of_images(tmp_path, data.getvalue()).load().columns["image"]
    from PIL import TiffImagePlugin

    seen: list[int] = []
    seek = TiffImagePlugin.TiffImageFile.seek
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "seek", lambda self, at: (seen.append(at), seek(self, at))[1])
    column.digests(Images())
    assert "1 of 3 images have several pictures" in " ".join(column.notes)
    assert max(seen) == 1


def saved(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_dict({"t": [f"text {n}" for n in range(40)], "y": [0, 1] * 20}).save_to_disk(str(folder))
    return next(folder.glob("*.arrow"))


def test_a_saved_data_set_is_read_by_another_process_first(tmp_path: Path) -> None:
    """A text whose end lies out of the file: Arrow reads what is there, or ends the process."""
    file = saved(tmp_path / "set")
    source = HuggingFaceDataset(str(tmp_path / "set"), text="t", label="y")
    assert source.load().columns["t"][39] == "text 39"
    with pytest.raises(DataError, match="max_gb"):
        HuggingFaceDataset(str(tmp_path / "set"), text="t", label="y", max_gb=1e-7).load()
    data = bytearray(file.read_bytes())
    ends = data.index(np.arange(0, 11 * 6, 6, np.int32).tobytes())
    data[ends + 4 * 40 : ends + 4 * 41] = struct.pack("<i", 2**31 - 1)
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match="Arrow files that are whole"):
        source.load()
    state = json.loads((tmp_path / "set" / "state.json").read_text())
    state["_data_files"] = [{"filename": "../../outside.arrow"}]
    (tmp_path / "set" / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="within the folder"):
        source.load()
    for odd in (5, "name", {"filename": "x"}, [5]):
        state["_data_files"] = odd
        (tmp_path / "set" / "state.json").write_text(json.dumps(state))
        with pytest.raises(DataError):
            source.load()


def test_weights_that_a_graph_names_lie_in_its_folder(tmp_path: Path) -> None:
    """`/dev/zero` has no end, and a digest of any other file would tell what is in it."""
    import onnx

    for name, told in (("../" * 20 + "dev/zero", "read any file"), ("missing.bin", "missing.bin")):
        weight = onnx.TensorProto(name="w", data_type=1, dims=[2, 2], data_location=1)
        weight.external_data.add(key="location", value=name)
        graph = onnx.GraphProto(name="g", initializer=[weight])
        graph.input.add(name="x").type.tensor_type.elem_type = 1
        (tmp_path / "m.onnx").write_bytes(onnx.ModelProto(ir_version=8, graph=graph).SerializeToString())
        import torch

        with pytest.raises(ModelError, match=told):
            OnnxTeacher(str(tmp_path / "m.onnx")).load(torch.device("cpu"))


def test_files_of_a_model_that_are_too_deep_are_told(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"modules\.json"):
        read_json(tmp_path / "modules.json")
    (tmp_path / "modules.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    for text in ("[" * 100_000, '{"model": {"type": "BPE", "vocab": []}}', "[]", "{}"):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ModelError, match="tokenizer"):
            Text(tokenizer=str(tmp_path)).load()


def test_brackets_of_json_are_counted_as_a_reader_of_single_characters_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.transfer.json_depth.MOST_DEPTH", 3)
    rng = random.Random(0)
    for _ in range(1500):
        text = bytes(rng.choice(b'[[]{"\\ \\"a') for _ in range(rng.randrange(1, 40)))
        counted, said, at = JsonDepth(Path("x")), "", 0
        try:
            while at < len(text):
                counted.read(text[at : (at := at + rng.randrange(1, 9))])
        except DataError as error:
            said = error.found
        depth, deepest, within, place = 0, 0, False, 0
        while place < len(text) and not (not within and text[place] == 92):
            mark = text[place : place + 1]
            place += 2 if mark == b"\\" else 1
            if mark == b'"':
                within = not within
            elif not within and mark in (b"[", b"{"):
                depth, deepest = depth + 1, max(deepest, depth + 1)
            elif not within and mark == b"]":
                depth = max(depth - 1, 0)
        if deepest > 3:
            assert said, text
        elif place < len(text.rstrip(b"\\")):
            assert said == "a backslash outside of a text", text
        elif not said and place >= len(text):
            assert counted.depth == depth, text


def test_damaged_files_end_in_a_sentence_and_never_in_a_crash(tmp_path: Path) -> None:
    """In a process of its own: a reader in C that crashes would end the tests."""
    script = Path(__file__).with_name("damaged_files.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "12"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert ended.stdout.count("\n") == 9, ended.stdout
