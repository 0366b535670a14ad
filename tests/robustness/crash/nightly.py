"""How much is tried: a little in the ordinary run, much with DASKPKI_NIGHTLY=1."""

from __future__ import annotations

import os
from typing import Final, TypeVar

NIGHTLY: Final = os.environ.get("DASKPKI_NIGHTLY") == "1"

T = TypeVar("T")


def by_day(day: T, *, night: T) -> T:
    """The one that this run is for."""
    return night if NIGHTLY else day
