"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference videos and lists that the project's own CI has beside the checkout."""
    folder = Path(os.environ.get("ZSAR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the reference videos and lists are not here ({folder}); set ZSAR_SHARED to their folder")
    return folder
