"""How much is tried: a little in the ordinary run, much with DASKPKI_NIGHTLY=1."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

NIGHTLY: Final = os.environ.get("DASKPKI_NIGHTLY") == "1"

T = TypeVar("T")


def by_day(day: T, *, night: T) -> T:
    """The one that this run is for."""
    return night if NIGHTLY else day


def sample(cases: Sequence[T], *, one_of: int) -> list[T]:
    """All of them in a long run, else the first of each so many."""
    return list(cases)[:: by_day(one_of, night=1)]
