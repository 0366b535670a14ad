"""A CA for each test; the tests in JupyterLab are for long runs."""

from __future__ import annotations

import pytest

from tests.support.cluster_material import Authority
from tests.support.nightly import NIGHTLY

collect_ignore = [] if NIGHTLY else ["test_jupyter.py"]  # JupyterLab takes CI a minute, and its packages half of one


@pytest.fixture
def authority() -> Authority:
    return Authority()
