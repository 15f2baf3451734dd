from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon import Daemon


@pytest.fixture(scope="session")
def shared() -> Iterator[Daemon]:
    """A daemon for tests that disturb nobody."""
    with Daemon(resources={"max_workers": 20}) as daemon:
        yield daemon
