"""One desktop session for all tests of people's credentials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daskpki.credentials.os_keyring import OSKeyring
from tests.credentials.desktop import Desktop, desktop


@pytest.fixture(scope="session")
def session() -> Iterator[Desktop]:
    with desktop() as running:
        yield running


@pytest.fixture
def keyring(session: Desktop) -> OSKeyring:
    return OSKeyring(session.environ, time_limit=20)
