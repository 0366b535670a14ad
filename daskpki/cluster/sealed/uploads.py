"""In a helper: modules that its client uploaded, imported from memory, since a helper writes no files."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import sys
import zipfile
from typing import Any, Final

_MOST_FILES: Final = 10_000


class Uploads(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Sources of a `.py`, or of an archive, by path."""

    def __init__(self) -> None:
        self._sources: dict[str, bytes] = {}

    def add(self, filename: str, data: bytes) -> None:
        """Take a file in; its modules, if they were imported from an older one, are forgotten."""
        if filename.endswith((".zip", ".egg")):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in archive.namelist() if name.endswith(".py")][:_MOST_FILES]
                self._sources |= {name: archive.read(name) for name in names}
        else:
            self._sources[filename] = data
        for name in [name for name, module in sys.modules.items() if getattr(module, "__loader__", None) is self]:
            del sys.modules[name]

    def _path(self, fullname: str) -> str | None:
        stem = fullname.replace(".", "/")
        return next((path for path in (f"{stem}/__init__.py", f"{stem}.py") if path in self._sources), None)

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """See importlib."""
        return importlib.util.spec_from_loader(fullname, self) if self._path(fullname) else None

    def is_package(self, fullname: str) -> bool:
        """See importlib."""
        return (self._path(fullname) or "").endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """See importlib."""
        return importlib.util.decode_source(self._sources[self._path(fullname) or fullname])


UPLOADS = Uploads()
"""What this process can import beyond its installed modules."""
