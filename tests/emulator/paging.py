"""Pages of a list, newest first: the token names the last item given, so what is added meanwhile shifts nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.emulator.messages import Pb
from tests.emulator.status import invalid

MAX_PAGE_SIZE = 25_000
DEFAULT_PAGE_SIZE = 100

Item = TypeVar("Item")


def page(items: Sequence[Item], request: Pb, key: Callable[[Item], int]) -> tuple[list[Item], str]:
    """The items of the page that a request asks for, and the token of the next one, empty at the end.

    Args:
        items: In descending order of `key`.
        request: Any list request; a token is good only for the same parent and filter.
        key: A number that never changes and is unique among the items.
    """
    if request.page_size < 0:
        raise invalid("Field [page_size] must not be negative.")
    size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    rest = list(items)
    if request.page_token:
        last = _last_key(request)
        rest = [item for item in rest if key(item) < last]
    chosen = rest[:size]
    return chosen, _token(request, key(chosen[-1])) if len(rest) > size else ""


def _token(request: Pb, last: int) -> str:
    text = json.dumps([request.parent, request.filter, last])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _last_key(request: Pb) -> int:
    try:
        padded = request.page_token + "=" * (-len(request.page_token) % 4)
        parent, filter_text, last = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error):
        raise invalid("Field [page_token] is not a token that this service returned.") from None
    if (parent, filter_text) != (request.parent, request.filter):
        raise invalid("Field [page_token] belongs to a request with another parent or filter.")
    return int(last)
