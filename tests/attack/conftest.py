"""What attacks share; their minutes are in minutes.py, which tests/conftest.py loads."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from attack.minutes import Attack
from test_execute import Hands

__all__ = ["Attack"]
Connect = Callable[[str], psycopg.Connection]


@pytest.fixture
def hands(connect: Connect) -> Hands:
    """A worker without Python."""
    return Hands(connect)
