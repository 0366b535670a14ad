"""The recipe of docs/how-to/clusters.md: what stands where a cluster manager expects a Python."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from daskpki.identity import Role


def python_of(role: Role, directories: Mapping[Role, Path]) -> str:
    """`daskpki-entrypoint exec ROLE ... -- python` of this installation, with the role's credential directory."""
    entrypoint = Path(sys.executable).with_name("daskpki-entrypoint")
    options = f"--credential-dir {directories[role]} --cluster lab"
    return f"{entrypoint} exec {role.value} {options} -- {sys.executable}"
