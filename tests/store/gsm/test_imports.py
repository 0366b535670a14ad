"""Opening a store costs nothing of Google's libraries until the first request, and boot's share of it never does."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPEN = """
from daskpki.settings import GsmUrl
from daskpki.store.gsm.store import GsmStore
GsmStore(GsmUrl("my-project"), environ={}).close()
"""
PURE = "import daskpki.settings, daskpki.store.gsm.errors"


@pytest.mark.parametrize("code", [OPEN, PURE])
def test_nothing_heavy_is_imported(code: str) -> None:
    heavy = "print(*{name.partition('.')[0] for name in sys.modules} & {'google', 'grpc', 'requests', 'distributed'})"
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{heavy}"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == ""
