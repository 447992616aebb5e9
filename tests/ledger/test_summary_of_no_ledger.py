"""What `tutelage ledger` says of what is no ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.errors import DataError
from tutelage.ledger.summary import describe_ledger


def test_a_folder_is_not_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder"):
        describe_ledger(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        describe_ledger(tmp_path / "none.ledger")
