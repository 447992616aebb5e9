from __future__ import annotations

from pathlib import Path

import pytest

import tutelage.transfer
from tutelage.errors import DataError, ModelError
from tutelage.paths import resolve_path


def test_a_plain_path_and_the_home_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.csv").write_text("a\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path(str(tmp_path / "data.csv"), key="k") == tmp_path / "data.csv"
    assert resolve_path("~/data.csv", key="k") == tmp_path / "data.csv"


def test_a_package_path_is_inside_that_package_and_does_not_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "explosive_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_path("package:explosive_package/model/config.json", key="k") == package / "model" / "config.json"
    assert resolve_path("package:explosive_package", key="k") == package
    transfer = Path(tutelage.transfer.__file__).parent
    assert resolve_path("package:tutelage/transfer", key="k").resolve() == transfer.resolve()


def test_a_missing_file_names_its_nearest_sibling_in_the_error_type_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("")
    with pytest.raises(DataError, match=r"did you mean `train.parquet`\?") as caught:
        resolve_path(str(tmp_path / "trian.parquet"), key="data.source.path")
    assert caught.value.key == "data.source.path"
    with pytest.raises(ModelError, match="which does not"):
        resolve_path(str(tmp_path / "model"), key="teacher.path", error=ModelError)


def test_a_missing_folder_on_the_way_is_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(DataError, match="did you mean `models`"):
        resolve_path(str(tmp_path / "modles" / "a" / "b"), key="k")


@pytest.mark.parametrize("text", ["package:no_such_package/x", "package:/x", "package:os.path/x", "package:../x"])
def test_a_package_that_is_not_installed_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not installed"):
        resolve_path(text, key="k")


def test_a_module_without_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lone_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="single module"):
        resolve_path("package:lone_module/x", key="k")
