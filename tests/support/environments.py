"""Python environments into which daskpki is installed in its several ways, each with the test environment's Dask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.paths import ROOT

LIBRARIES = sysconfig.get_paths()["purelib"]
DEBIAN = Path("/usr/bin/python3")
BASE = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"

LOOK = """
import json, os, sys
import dask.config
from daskpki.credentials import dask_config
found = dask_config.read_config(dask.config.paths, os.environ)
print(json.dumps({
    "loader": dask.config.get("distributed.client.security-loader", None),
    "shipped": found.shipped and str(found.shipped), "asks": found.asks_daskpki, "decided": found.decided_by,
    "why": dask_config.explain_unread(), "tool": dask_config.tool_environment(), "prefix": sys.prefix,
    "from": dask_config.__file__,
}))
"""


class Environment(NamedTuple):
    """A Python, and the variables under which it is started."""

    python: Path
    variables: dict[str, str]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DASK"))}
        command = [str(self.python), *arguments]
        done = subprocess.run(
            command, cwd="/", env=environ | self.variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def pip_install(self, *arguments: str) -> None:
        """The test environment's pip installs daskpki for this Python; none of its own packages are looked at."""
        self.pip("install", "--no-deps", "--no-compile", *arguments)

    def pip(self, *arguments: str) -> None:
        """The test environment's pip, as `pip --python` runs it for this Python."""
        self.run(f"{LIBRARIES}/pip/__pip-runner__.py", "--disable-pip-version-check", "--quiet", *arguments)

    def copy(self, place: Path) -> Environment:
        """The same virtual environment in another place; its commands alone still name the first."""
        shutil.copytree(self.python.parents[1], place, symlinks=True)
        return self._replace(python=place / "bin" / "python")

    def look(self, **variables: str) -> Any:
        """What Dask's configuration says there, as daskpki sees it."""
        return json.loads(self._replace(variables=self.variables | variables).run("-c", LOOK).stdout)


def build_wheel(directory: Path) -> Path:
    """The wheel of this source tree."""
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(directory)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", *options, str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = directory.glob("daskpki-*.whl")
    return wheel


def make_venv(place: Path, *options: str, python: Path = Path(sys.executable)) -> Environment:
    """A virtual environment that finds Dask and all else in the test environment, but not daskpki."""
    subprocess.run([str(python), "-m", "venv", "--without-pip", *options, str(place)], check=True, timeout=60)
    (packages,) = place.glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text(f"{LIBRARIES}\n")  # whose own .pth files, such as daskpki's, are not read
    return Environment(place / "bin" / "python", {})
