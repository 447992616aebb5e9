"""Pixels of image files are those of Pillow, upright, and what can't be used is named before anything is trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps
from pyarrow import parquet

from tutelage.errors import DataError
from tutelage.transfer import Data, ImageFolder, Images, Splits, Table, TransferSet, image_files

ALONE = Splits(development=0, test=0)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"),
}
CASES = [(kind, mode) for kind, modes in FORMATS.items() for mode in modes]


def picture(mode: str = "RGB", size: tuple[int, int] = (9, 6), seed: int = 0) -> Image.Image:
    """Smooth, so that a lossy format keeps it, with no symmetry."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(float)
    red, green = 200 * x / width + 20, 150 * y / height + 40
    pixels = np.stack([red, green, 90 + seed + 20 * np.sin(x)], axis=-1).astype(np.uint8)
    made = Image.fromarray(pixels)
    if mode in ("LA", "RGBA"):
        made = made.convert(mode)
        made.putalpha(Image.fromarray((100 + 100 * (x > width / 2)).astype(np.uint8)))
        return made
    return made.convert(mode)


def stored(image: Image.Image, kind: str, orientation: int | None = None, **settings: Any) -> bytes:
    to, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        settings["exif"] = exif
    image.save(to, kind, **settings)
    return to.getvalue()


def folder(path: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return str(path)


def load(path: str, **images: Any) -> TransferSet:
    return Data(source=ImageFolder(path), images=Images(**images) if images else None, splits=ALONE).load()


def pixels(data: TransferSet, row: int = 0) -> np.ndarray:
    """uint8 `[H, W]` or `[H, W, 3]`."""
    found: np.ndarray = data.display(row)["input"]
    return found


def pillow(content: bytes, mode: str) -> np.ndarray:
    """What Pillow's own calls give."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert(mode))


@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_each_mode_of_each_format_is_what_pillow_makes_of_it(tmp_path: Path, kind: str, mode: str) -> None:
    content = stored(picture(mode), kind)
    path = folder(tmp_path, {"a/0": content, "a/1": content})
    with Image.open(io.BytesIO(content)) as image:
        grey = image.mode in ("1", "L", "LA")
    np.testing.assert_array_equal(pixels(load(path)), pillow(content, "L" if grey else "RGB"))
    for said in ("L", "RGB"):
        np.testing.assert_array_equal(pixels(load(path, mode=said), 1), pillow(content, said))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_as_its_orientation_tag_says(tmp_path: Path, kind: str, orientation: int) -> None:
    content = stored(picture(), kind, orientation)
    data = load(folder(tmp_path, {"0": content, "1": content}))
    np.testing.assert_array_equal(pixels(data), pillow(content, "RGB"))
    batch = data.batch(np.array([1]))
    assert batch.raw is not None
    np.testing.assert_array_equal(batch.raw()["image"][0], pillow(content, "RGB"))  # what a teacher of files is given
    assert pixels(data).shape == ((9, 6, 3) if orientation >= 5 else (6, 9, 3))
    assert any("2 of 2 images are turned upright" in note for note in data.notes) is (orientation != 1)


def test_orientation_is_part_of_what_answers_depend_on_and_nothing_else_is(tmp_path: Path) -> None:
    first = stored(picture(), "PNG")
    plain = load(folder(tmp_path / "a", {"0": first, "1": first}))
    turned = load(folder(tmp_path / "b", {"0": first, "1": stored(picture(size=(6, 9)), "PNG", 6)}))
    assert plain.columns._files()[0].differs == ""
    assert turned.columns._files()[0].differs != ""
    turned.columns._files()[0].differs, with_tag = "", turned.inputs_fingerprint
    assert turned.inputs_fingerprint != with_tag


@pytest.mark.parametrize("first", ["L", "RGB"])
def test_one_grey_file_among_photos_does_not_decide_for_them(tmp_path: Path, first: str) -> None:
    modes = ["L", "RGB", "RGB"] if first == "L" else ["RGB", "RGB", "L"]
    contents = [stored(picture(mode, seed=9 * row), "PNG") for row, mode in enumerate(modes)]
    path = folder(tmp_path, {str(row): content for row, content in enumerate(contents)})
    data = load(path)
    for row, content in enumerate(contents):
        np.testing.assert_array_equal(pixels(data, row), pillow(content, "RGB"))
    assert any("1 of 3 images are grey and become colour" in note for note in data.notes)
    assert any("2 of 3 images have colour and become grey" in note for note in load(path, mode="L").notes)


@pytest.mark.parametrize("fits", [True, False])
def test_damaged_files_are_all_named_in_one_message(
    tmp_path: Path, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fits:  # as a folder that does not fit in memory
        monkeypatch.setattr(image_files, "_KEEP_BYTES", 0)
    whole = {kind: stored(picture(size=(90, 60)), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")}
    good = {f"a/{kind}": content for kind, content in whole.items()}
    assert len(load(folder(tmp_path / "good", good))) == 6
    for kind, content in whole.items():
        cut = tmp_path / kind / "a" / "cut.jpg"
        data = folder(tmp_path / kind, {**good, "a/cut.jpg": content[: len(content) * 6 // 10]})
        with pytest.raises(DataError, match=rf"{cut}(.|\n)*repair or remove"):
            load(data)
    several = {**good, "a/x.jpg": whole["JPEG"][:-300], "a/y.png": whole["PNG"][:-30], "a/z.png": b"no image"}
    with pytest.raises(DataError, match=r"3 of 9 images(.|\n)*x\.jpg(.|\n)*y\.png(.|\n)*z\.png"):
        load(folder(tmp_path / "several", several))


def test_damaged_and_deep_images_in_a_table_are_found_when_it_is_read(tmp_path: Path) -> None:
    good = stored(picture(size=(90, 60)), "JPEG")
    deep = io.BytesIO()
    Image.fromarray(np.full((60, 90), 40_000, np.uint16)).save(deep, "PNG")
    for bad, message in ((good[:-200], "Pillow can decode"), (deep.getvalue(), "8 bits")):
        parquet.write_table(pa.table({"photo": [good, bad]}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=rf"column `photo`, row 1(.|\n)*{message}"):
            Data(source=Table(str(tmp_path / "a.parquet"), image="photo"), splits=ALONE).load()


def test_files_are_images_by_their_content_and_others_are_counted(tmp_path: Path) -> None:
    content = stored(picture(), "PNG")
    names = ["a/0.png", "a/1.JPG", "a/2.jfif", "a/no_suffix", "b/3.dat"]
    strange = {"a/notes.txt": b"no image", "b/photo.heic": b"\0\0\0 ftypheic", "b/movie.mp4": b"\0\0\0 ftypmp42"}
    clutter = {"a/Thumbs.db": b"x", "a/.DS_Store": b"x", "a/.hidden.png": b"x", "b/desktop.ini": b"x"}
    data = load(folder(tmp_path, {**dict.fromkeys(names, content), **strange, **clutter}))
    assert len(data) == 5
    (note,) = [note for note in data.notes if "left out" in note]
    assert "3 files that Pillow can't read as images" in note
    assert all(f"1 {suffix}" in note for suffix in (".txt", ".heic", ".mp4"))


def test_a_class_whose_files_are_all_unreadable_does_not_move_the_others_up(tmp_path: Path) -> None:
    content = stored(picture(), "PNG")
    path = folder(tmp_path, {"ant/0.png": content, "bee/0.heic": b"\0\0\0 ftypheic", "cow/0.png": content})
    with pytest.raises(DataError, match=r"class folder `bee`(.|\n)*1 \.heic(.|\n)*move up"):
        ImageFolder(path).load()
    rows = ImageFolder(path, classes=["ant", "bee", "cow"]).load()
    assert rows.labels is not None
    assert rows.labels.tolist() == [0, 2]


def test_the_first_picture_of_several_and_what_lies_under_transparency_are_said(tmp_path: Path) -> None:
    frames = [picture("P", seed=seed) for seed in (0, 60)]
    animated = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    data = load(folder(tmp_path, {"0.gif": animated, "1.png": stored(picture("RGBA"), "PNG")}))
    np.testing.assert_array_equal(pixels(data, 0), pillow(animated, "RGB"))
    assert any("1 of 2 images have several pictures" in note for note in data.notes)
    assert any("1 of 2 images have transparency" in note for note in data.notes)


def test_a_bomb_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"0\.png(.|\n)*DecompressionBomb"):
        load(folder(tmp_path, {"0.png": stored(picture(), "PNG")}))


def test_resized_pixels_are_pillow_s_own_whatever_fits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"0": stored(picture(size=(40, 30)), "JPEG", 6), "1": stored(picture("L", (25, 50)), "PNG")}
    expected = []
    for content in contents.values():
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            expected.append(np.asarray(upright.resize((8, 12), Image.Resampling.BILINEAR)))
    path = folder(tmp_path, contents)
    for keep in (2**31, 0):
        monkeypatch.setattr(image_files, "_KEEP_BYTES", keep)
        data = load(path, size=[12, 8])
        for row in range(2):
            np.testing.assert_array_equal(pixels(data, row), expected[row])
