"""The world that the scorer's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scoring import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "shown")
    yield world
    world.lists.close()
