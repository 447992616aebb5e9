from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import sys
from pathlib import Path

import pytest
import torch

from tutelage.errors import DataError
from tutelage.files import digest_file
from tutelage.governance.provenance import digest_files, environment


def test_digests_are_of_every_file_by_its_path_in_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"two")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin").write_bytes(bytes(3_000_000))
    (tmp_path / "provenance.json").write_text("{}")
    expected = {
        "b.txt": hashlib.sha256(b"two").hexdigest(),
        "folder/a.bin": hashlib.sha256(bytes(3_000_000)).hexdigest(),
    }
    assert digest_files(tmp_path) == expected
    assert list(digest_files(tmp_path)) == sorted(expected)
    assert set(digest_files(tmp_path, exclude=())) == {*expected, "provenance.json"}
    assert digest_file(tmp_path / "b.txt") == expected["b.txt"]


def test_one_changed_bit_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00")
    before = digest_files(tmp_path)
    (tmp_path / "x").write_bytes(b"\x01")
    assert digest_files(tmp_path) != before


def test_a_link_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "secret").write_text("elsewhere")
    (bundle / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="symbolic link"):
        digest_files(bundle)


def test_a_missing_folder_is_named_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        digest_files(tmp_path / "nowhere")
    assert "nowhere" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_environment_names_software_and_no_machine() -> None:
    found = environment()
    text = json.dumps(found, allow_nan=False)
    assert found["packages"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["python"].count(".") == 2
    assert "tutelage" in found["packages"]
    private = [socket.gethostname(), str(Path.home()), str(Path.cwd())]
    assert not any(word in text for word in private if len(word) > 3)
    assert getpass.getuser() not in found
    assert os.sep + "home" not in text


def test_the_library_that_answers_for_a_teacher_is_named_where_it_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    assert "lightgbm" not in environment()["packages"]
    import lightgbm

    assert environment()["packages"]["lightgbm"] == lightgbm.__version__
