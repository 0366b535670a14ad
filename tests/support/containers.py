"""Real containers without a registry: the recipe's image, built by buildah on a base of Debian's packages, and podman.

As root, with a storage of their own below $XDG_CACHE_HOME/daskpki or ~/.cache/daskpki, which also keeps the bases.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.sandbox import AS_ROOT

ROOT: Final = Path(__file__).parents[2]
SUITES: Final = {"3.11": "bookworm", "3.13": "trixie"}
"""The Debian that has this Python."""

BASE: Final = "docker.io/library/python:3.12.11-slim-bookworm"
"""What the recipe's own FROM line asks for."""

_STORAGE: Final = """\
[storage]
driver = "overlay"
graphroot = "{0}/graph"
runroot = "{0}/run"
"""
_ENGINE: Final = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
"""
"""What a machine without systemd needs: limits no higher than its own, and no scopes; crun refuses hybrid cgroups."""


class Containers:
    """Buildah and podman on a storage of their own."""

    def __init__(self) -> None:
        # Not $HOME: each test has one of its own, and the bases are to stay.
        cache = os.environ.get("DASKPKI_CACHE") or f"{pwd.getpwuid(os.getuid()).pw_dir}/.cache"
        self._here = Path(cache) / "daskpki" / "containers"
        self._here.mkdir(parents=True, exist_ok=True)
        files = {"storage.conf": _STORAGE.format(self._here), "containers.conf": _ENGINE}
        for name, text in files.items():
            (self._here / name).write_text(text, encoding="utf-8")
        self.environ = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(self._here / "storage.conf"),
            "CONTAINERS_CONF": str(self._here / "containers.conf"),
        }

    def run(self, *command: str | Path, check: bool = True) -> str:
        """What the command says; its error is shown when it fails."""
        done = subprocess.run(
            [*AS_ROOT, *map(str, command)], env=self.environ, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr[-4000:]}"
        return done.stdout.strip()

    def build(self, python: str, tag: str) -> str:
        """The recipe's image, on a base that has this Python; its id."""
        container = self.run("buildah", "from", "scratch")
        self.run("buildah", "copy", "--quiet", container, self._base(python), "/")
        self.run("buildah", "run", "--isolation", "chroot", container, "ln", "-sf", "python3", "/usr/bin/python")
        self.run("buildah", "commit", "--quiet", "--rm", container, BASE)
        # One time for all files, else no two builds are the same. The CAs are those with which this machine downloads.
        options = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--no-cache", "--timestamp", "0"]
        options += ["--quiet", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        recipe = ROOT / "scripts" / "container" / "Dockerfile"
        return self.run("buildah", "build", *options, "--file", recipe, "--tag", tag, ROOT)

    def _base(self, python: str) -> Path:
        """A file system of Debian's packages with Python: what `scripts/elsewhere.sh` has, or one that is made now."""
        elsewhere = self._here.parent / f"python-{python}"
        if (elsewhere / "made").exists() and not (elsewhere / "packages").exists():
            return elsewhere / "root"
        base = self._here / f"base-{python}"
        if not (base / "usr/bin/python3").exists():
            shutil.rmtree(base, ignore_errors=True)
            packages = "--include=ca-certificates,python3,python3-venv"
            partial = base.with_suffix(".part")
            self.run("rm", "-rf", "--one-file-system", partial)
            self.run("debootstrap", "--variant=minbase", packages, SUITES[python], partial, _mirror())
            self.run("mv", partial, base)
        return base

    def inspect(self, image: str) -> dict[str, Any]:
        """What podman knows of an image."""
        found: list[dict[str, Any]] = json.loads(self.run("podman", "image", "inspect", image))
        return found[0]

    @contextmanager
    def started(self, name: str, options: Sequence[str], image: str, *command: str) -> Iterator[None]:
        """A container that runs as the docs say, until the block ends."""
        usual = [
            "--detach",
            "--name",
            name,
            "--network=host",
            "--read-only",
            "--tmpfs=/tmp",
            "--volume=/scratch",
        ]
        usual += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
        self.run("podman", "run", *usual, *options, image, *command)
        try:
            yield
        finally:
            self.run("podman", "rm", "--force", "--time", "0", name, check=False)

    def log(self, name: str) -> str:
        """What the container said, on both streams."""
        done = subprocess.run(
            [*AS_ROOT, "podman", "logs", name], env=self.environ, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr


def _mirror() -> str:
    """The mirror of Debian that apt uses here."""
    lines = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Label: Debian"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return lines[0]
