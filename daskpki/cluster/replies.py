"""Error replies of workers that code on the scheduler unpickles, replaced by ones that are made here from their text.

`PipInstall`, `CondaInstall` and `UploadDirectory` run on the scheduler and deserialize the exceptions with which
nannies and workers answer (distributed.diagnostics.plugin, `InstallPlugin.start`, `UploadDirectory.start`). Everywhere
else a scheduler passes such exceptions on to a client unread.
"""

from __future__ import annotations

import builtins
import re
from typing import Any, Final

from distributed.protocol import pickle
from distributed.protocol.serialize import Serialized, serialize

UNPICKLED: Final = frozenset({"plugin-add", "plugin_add", "plugin-remove", "plugin_remove"})
"""Operations whose error replies are read on the scheduler."""

_TYPE: Final = re.compile(r"(\w+)\(")


def from_text(reply: Any) -> Any:
    """`reply` unless it reports an error; then one with an exception of Python's own made from its text."""
    if not isinstance(reply, dict) or reply.get("status") == "OK":
        return reply
    text = str(reply.get("exception_text", "no text"))
    return {
        "status": "error",
        "exception": Serialized(*serialize(pickle.dumps(_exception(text)))),
        "traceback": Serialized(*serialize(None)),
        "exception_text": text,
        "traceback_text": str(reply.get("traceback_text", "")),
    }


def _exception(text: str) -> Exception:
    """Of the type that the text's repr names when that is one of Python's own, else RuntimeError."""
    found = _TYPE.match(text)
    kind = getattr(builtins, found.group(1), None) if found else None
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return RuntimeError(text)
    try:
        return kind(text)
    except TypeError:  # UnicodeDecodeError and the like want more than a text
        return RuntimeError(text)
