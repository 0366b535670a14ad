"""The last of three layers: no unpickler of this process may look up a name, so no pickle can run code.

An audit hook cannot be removed (PEP 578). A pickle that the other two layers missed is refused and logged.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import distributed.shuffle._scheduler_plugin  # noqa: F401 - imported before its `error_message` is replaced
from distributed.core import error_message as stock_error_message
from distributed.protocol import pickle
from distributed.protocol.serialize import to_serialize
from distributed.utils import get_traceback, truncate_exception

_LONGEST: Final = 10_000
"""Most characters of an error in a reply, as distributed.admin.max-error-length."""
_REHEARSED: Final = "daskpki.cluster.sealed.selftest.song_of_the_start"
"""The name in the pickle with which each start tests the hook."""
_OURS: Final = frozenset({"builtins", "asyncio", "concurrent", "dask", "daskpki", "distributed", "tornado"})
_for_an_admin: ContextVar[bool] = ContextVar("daskpki-unpickles-for-an-admin", default=False)

logger = logging.getLogger("distributed.daskpki")

refused: list[str] = []
"""The latest refused names, for the page."""


def install() -> None:
    """Install the hook in this process, for good."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("error_message") is stock_error_message:
            module.error_message = error_message  # type: ignore[attr-defined]
    sys.addaudithook(_refuse_names)


@contextmanager
def unpickling_for_an_admin() -> Iterator[None]:
    """Let the current asyncio task, and the tasks that it starts, unpickle a message of an admin's certificate."""
    token = _for_an_admin.set(True)
    try:
        yield
    finally:
        _for_an_admin.reset(token)


def _refuse_names(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "pickle.find_class" or _for_an_admin.get():
        return
    name = ".".join(map(str, arguments))[:200]
    refused.append(name)
    del refused[:-100]
    level = logging.DEBUG if name == _REHEARSED else logging.ERROR
    logger.log(level, "sealed: a pickle that names %r was about to be opened in the scheduler, and was refused", name)
    raise PermissionError(f"a sealed scheduler opens no pickles, and this one names {name}")


def error_message(error: BaseException, status: str = "error") -> dict[str, Any]:
    """Make Dask's error message, without its test that unpickles the error again.

    An error whose type is not Python's, Dask's or ours is replaced by its text.
    """
    told: BaseException = truncate_exception(error, _LONGEST)
    if type(told).__module__.partition(".")[0] not in _OURS:
        told = Exception(repr(told))
    try:
        pickled = pickle.dumps(told)
    except Exception:  # noqa: BLE001 - whatever it holds cannot be pickled
        pickled = pickle.dumps(Exception(repr(told)))
    return {
        "status": status,
        "exception": to_serialize(pickled),
        "traceback": None,  # its frames are the scheduler's own, and to pickle them takes tblib's loading back
        "exception_text": repr(told),
        "traceback_text": "".join(traceback.format_tb(get_traceback())),
    }
