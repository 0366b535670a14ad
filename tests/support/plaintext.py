"""A keyring backend that must not be used, selected by PYTHON_KEYRING_BACKEND as a user's configuration would."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend


class Plaintext(KeyringBackend):
    """A file of texts, as keyrings.alt has it."""

    priority = 9

    @property
    def _path(self) -> Path:
        return Path(os.environ["HOME"], "plaintext.json")

    def _entries(self) -> dict[str, str]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        """One entry."""
        return self._entries().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Write it in the clear."""
        self._path.write_text(json.dumps(self._entries() | {f"{service} {username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        """Forget one."""
        self._path.write_text(json.dumps({k: v for k, v in self._entries().items() if k != f"{service} {username}"}))
