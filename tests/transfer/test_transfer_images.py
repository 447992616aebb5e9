from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from tutelage.errors import DataError, MissingExtra, RecipeError
from tutelage.transfer import Arrays, Data, HuggingFaceDataset, ImageFolder, Images, Splits, Table, TransferSet

RNG = np.random.default_rng(0)


def load(pixels: np.ndarray, images: Images | None = None) -> TransferSet:
    return Data(source=Arrays(pixels), images=images, splits=Splits(development=0, test=0)).load()


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("layout", ["last", "first"])
def test_pixels_are_normalised_by_channel_with_channels_first(layout: str) -> None:
    pixels = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    given = pixels if layout == "last" else pixels.transpose(0, 3, 1, 2)
    data = load(given, Images(mean=mean, std=std))
    expected = (pixels.astype(np.float64) / 255 - mean) / std
    batch = data.batch(np.arange(4))
    assert isinstance(batch.inputs, torch.Tensor)
    assert batch.inputs.dtype == torch.float32
    np.testing.assert_allclose(batch.inputs.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)
    np.testing.assert_array_equal(data.display(2)["input"], pixels[2])


def test_grey_images_get_a_channel_and_bytes_with_two_axes_are_no_images() -> None:
    pixels = RNG.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    batch = load(pixels).batch(np.arange(3))
    np.testing.assert_allclose(batch.inputs.numpy()[:, 0], pixels / 255.0, atol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_array_equal(load(pixels[..., None]).display(1)["input"], pixels[1])
    np.testing.assert_array_equal(load(pixels).display(1)["input"], pixels[1])
    assert load(pixels[:, 0]).batch(np.arange(3)).inputs.dtype == torch.int64  # type: ignore[union-attr]


def test_resizing_is_that_of_torch_with_antialiasing() -> None:
    pixels = np.full((2, 8, 8), 51, dtype=np.uint8)
    pixels[:, :, 4:] = 204
    shrunk = load(pixels, Images(size=4)).batch(np.arange(2)).inputs
    assert shrunk.shape == (2, 1, 4, 4)  # type: ignore[union-attr]
    # Far from the edge a constant stays what it was; the left half is 0.2, the right one 0.8.
    np.testing.assert_allclose(shrunk[0, 0, :, [0, 3]].numpy(), [[0.2, 0.8]] * 4, atol=1e-6)  # type: ignore[call-overload,index]
    assert load(pixels, Images(size=[4, 6])).batch(np.arange(1)).inputs.shape == (1, 1, 4, 6)  # type: ignore[union-attr]


def test_an_ambiguous_shape_is_refused_unless_the_recipe_says_which() -> None:
    for shape in ((9, 3, 5, 3), (9, 5, 6, 7)):
        with pytest.raises(DataError, match=r"images\.channels"):
            load(np.zeros(shape, dtype=np.uint8))
    pixels = RNG.integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    first = load(pixels, Images(channels="first")).batch(np.arange(2)).inputs
    np.testing.assert_allclose(first.numpy(), pixels / 255.0, atol=1e-6)  # type: ignore[union-attr]


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"images\.std"):
        Images(std=[0.0])
    with pytest.raises(RecipeError, match=r"images\.size"):
        Images(size=[1, 2, 3])
    with pytest.raises(DataError, match="the channels of"):
        load(np.zeros((2, 4, 4), np.uint8), Images(mean=[0.1, 0.2, 0.3])).batch(np.arange(2))
    with pytest.raises(RecipeError, match="would be ignored"):
        Data(source=Arrays(np.zeros((30, 1, 4, 4), np.float32)), images=Images()).load()


def test_class_folders_are_classes_and_files_are_decoded_exactly(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        save(tmp_path / ("bee" if i % 2 else "ant") / f"{i}.png", image)
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    data = Data(source=ImageFolder(str(tmp_path)), splits=Splits(development=0, test=0)).load()
    order = [0, 2, 4, 1, 3, 5]
    assert data.classes == ("ant", "bee")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for rows in ([0, 1, 2, 3, 4, 5], [5, 0, 0]):
        found = data.batch(np.array(rows)).inputs
        expected = pixels[[order[row] for row in rows]].transpose(0, 3, 1, 2) / 255.0
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_array_equal(data.display(3)["input"], pixels[1])
    assert data.display(3)["label"] == "bee"
    other = ImageFolder(str(tmp_path), classes=["bee", "ant"]).load()
    assert other.labels is not None
    assert other.labels.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(DataError, match="every class folder"):
        ImageFolder(str(tmp_path), classes=["bee"]).load()


def test_split_folders_are_splits_and_loose_files_have_no_label(tmp_path: Path) -> None:
    for i, name in enumerate(["train/a/0", "train/a/1", "train/b/0", "train/loose", "validation/b/0", "test/a/0"]):
        save(tmp_path / f"{name}.png", np.full((3, 3), i * 30, dtype=np.uint8))
    data = Data(source=ImageFolder(str(tmp_path))).load()
    assert data.sizes == {"train": 4, "development": 1, "test": 1}
    assert data.classes == ("a", "b")
    assert data.labels is not None
    assert [data.display(int(row))["label"] for row in data.rows("train")] == [None, "a", "a", "b"]
    assert data.display(int(data.rows("test")[0]))["label"] == "a"


def test_a_flat_folder_is_unlabelled_and_equal_files_are_one_content(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", np.full((3, 3), 9 if i < 3 else 10, dtype=np.uint8))
    data = Data(source=ImageFolder(str(tmp_path)), splits=Splits(development=0, test=0)).load()
    assert data.labels is None
    assert data.batch(np.array([0])).labels is None
    content, _ = data.columns.digests()
    assert content[0] == content[1] == content[2] != content[3]


def test_images_of_different_sizes_need_a_size_and_are_then_resized(tmp_path: Path) -> None:
    save(tmp_path / "0.png", np.full((4, 4), 100, dtype=np.uint8))
    save(tmp_path / "1.png", np.full((6, 8), 200, dtype=np.uint8))
    splits = Splits(development=0, test=0)
    with pytest.raises(DataError, match=r"1\.png(.|\n)*images\.size"):
        Data(source=ImageFolder(str(tmp_path)), splits=splits).load().batch(np.arange(2))
    data = Data(source=ImageFolder(str(tmp_path)), splits=splits, images=Images(size=[3, 2], mode="RGB")).load()
    inputs = data.batch(np.arange(2)).inputs
    assert inputs.shape == (2, 3, 3, 2)  # type: ignore[union-attr]
    np.testing.assert_allclose(inputs[1].numpy(), 200 / 255, atol=1e-6)  # type: ignore[call-overload,index]


def test_corrupt_and_cut_images_are_named(tmp_path: Path) -> None:
    good = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    save(tmp_path / "a" / "0.jpg", good)
    whole = (tmp_path / "a" / "0.jpg").read_bytes()
    (tmp_path / "a" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    splits = Splits(development=0, test=0)
    with pytest.raises(DataError, match=r"1\.jpg(.|\n)*Pillow can decode"):
        Data(source=ImageFolder(str(tmp_path)), splits=splits).load()
    (tmp_path / "a" / "2.png").write_bytes(b"not an image at all")
    with pytest.raises(DataError, match=r"2 of 3 images(.|\n)*1\.jpg(.|\n)*2\.png(.|\n)*repair or remove"):
        Data(source=ImageFolder(str(tmp_path)), splits=splits).load()


def test_a_damaged_png_is_found_by_its_checksum_before_training(tmp_path: Path) -> None:
    save(tmp_path / "0.png", np.zeros((8, 8), dtype=np.uint8))
    save(tmp_path / "1.png", RNG.integers(0, 256, (8, 8), dtype=np.uint8))
    damaged = bytearray((tmp_path / "1.png").read_bytes())
    damaged[damaged.index(b"IDAT") + 20] ^= 0xFF
    (tmp_path / "1.png").write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"1\.png(.|\n)*Pillow can decode"):
        Data(source=ImageFolder(str(tmp_path)), splits=Splits(development=0, test=0)).load()


def test_sixteen_bit_images_are_refused_instead_of_clipped(tmp_path: Path) -> None:
    save(tmp_path / "0.png", np.full((3, 3), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"8 bits(.|\n)*clipped"):
        Data(source=ImageFolder(str(tmp_path)), splits=Splits(development=0, test=0)).load().batch(np.array([0]))


def test_files_are_decoded_once(tmp_path: Path) -> None:
    save(tmp_path / "0.png", np.full((3, 3), 5, dtype=np.uint8))
    data = Data(source=ImageFolder(str(tmp_path)), splits=Splits(development=0, test=0)).load()
    first = data.batch(np.array([0])).inputs
    (tmp_path / "0.png").unlink()
    torch.testing.assert_close(data.batch(np.array([0])).inputs, first)


def test_encoded_images_of_tables_and_datasets_are_decoded(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    encoded = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    parquet.write_table(pa.table({"picture": encoded}), tmp_path / "t.parquet")
    dataset = datasets.Dataset.from_dict({"picture": [{"bytes": b, "path": None} for b in encoded]}).cast_column(
        "picture", datasets.Image()
    )
    for source in (
        Table(str(tmp_path / "t.parquet"), image="picture"),
        HuggingFaceDataset(dataset, image="picture"),
    ):
        inputs = Data(source=source, splits=Splits(development=0, test=0)).load().batch(np.arange(3)).inputs
        np.testing.assert_allclose(inputs.numpy(), pixels.transpose(0, 3, 1, 2) / 255.0, atol=1e-6)  # type: ignore[union-attr]


def test_folders_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="none in"):
        ImageFolder(str(tmp_path)).load()
    save(tmp_path / "0.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="the file"):
        ImageFolder(str(tmp_path / "0.png")).load()
    with pytest.raises(DataError, match="which does not"):
        ImageFolder(str(tmp_path / "nowhere")).load()
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"tutelage\[images\]"):
        Data(source=ImageFolder(str(tmp_path))).load()
