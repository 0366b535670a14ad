"""`docker run` without Docker: a generated command line carried out with namespaces, for the options that it uses.

The image is this checkout: its entrypoint takes the place of the recipe's, and the container's root is this machine's
file system, read-only. Whatever option is not known here is an error, so that nothing is passed over silently.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.sandbox import for_every_user

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
_TAKEN_AS_IT_IS = ("--rm", "--network=host", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only")
"""No capabilities, no new privileges and a read-only root are what everything gets here."""

_NEW_ROOT = "/mnt"
_ROOT_OF_ITS_OWN = f"""
    set -e
    mount -t tmpfs -o mode=755 none {_NEW_ROOT}
    for entry in /*; do
        case $entry in {_NEW_ROOT}) continue ;; esac
        if [ -L "$entry" ]; then cp -P "$entry" {_NEW_ROOT}; continue; fi
        [ -d "$entry" ] || continue
        mkdir "{_NEW_ROOT}$entry"
        mount --rbind "$entry" "{_NEW_ROOT}$entry"
    done
"""
"""What this machine has at the top, and room for mount points of the container's own."""

_READ_ONLY = f"""
    for place in $(awk '$5 ~ "^{_NEW_ROOT}" {{ print $5 }}' /proc/self/mountinfo); do
        case $place in {_NEW_ROOT}/proc* | {_NEW_ROOT}/dev* | {_NEW_ROOT}/sys*) continue ;; esac
        if mountpoint -q "$place"; then mount -o remount,bind,ro "$place"; fi
    done
"""


class Run(NamedTuple):
    """A command line, taken apart: the user as UID:GID, file systems to mount, the environment, image and command."""

    user: str
    tmpfs: Mapping[str, str]
    volumes: Mapping[str, str]
    environ: Mapping[str, str]
    image: str
    command: tuple[str, ...]


def parse_run(line: str) -> Run:
    """What follows `docker run`; KeyError for an option that is not known here."""
    words = shlex.split(line)
    at = next(number for number, word in enumerate(words) if not word.startswith("-"))
    options = [word for word in words[:at] if word not in _TAKEN_AS_IT_IS]
    assert len(words[:at]) - len(options) == len(_TAKEN_AS_IT_IS), "the container would be allowed more"
    several: dict[str, list[str]] = {"--name": [], "--user": [], "--tmpfs": [], "--volume": [], "--env": []}
    for word in options:
        name, _, value = word.partition("=")
        several[name].append(value)
    (user,) = several["--user"]
    tmpfs, volumes = (dict(one.split(":", 1) for one in several[name]) for name in ("--tmpfs", "--volume"))
    environ = dict(one.split("=", 1) for one in several["--env"])
    return Run(user, tmpfs, volumes, environ, words[at], tuple(words[at + 1 :]))


def command_for(run: Run, more: Mapping[str, str]) -> list[str]:
    """The command that runs it, as root; `more` is environment that the machine has and the command line does not."""
    uid, _, gid = run.user.partition(":")
    environ = {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **more, **run.environ}
    privileges = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
    privileges += ["--bounding-set=-all", "--inh-caps=-all"]
    program = ["env", "-i", *(f"{name}={value}" for name, value in environ.items())]
    inside = [*privileges, *program, str(BIN / "daskpki-entrypoint"), *run.command]
    steps = [_ROOT_OF_ITS_OWN, *(f"mkdir -p {_NEW_ROOT}{target}" for target in (*run.tmpfs, *run.volumes.values()))]
    steps += [_READ_ONLY, *(f"mount -t tmpfs -o {how} none {_NEW_ROOT}{at}" for at, how in run.tmpfs.items())]
    steps += [*_image_below(run.tmpfs)]
    steps += [f"mount --bind {source} {_NEW_ROOT}{target}" for source, target in run.volumes.items()]
    steps += [f'exec chroot {_NEW_ROOT} "$@"']
    return [*NAMESPACES, "sh", "-c", for_every_user(), "sh", "sh", "-c", "\n".join(steps), "sh", *inside]


def _image_below(tmpfs: Iterable[str]) -> Iterator[str]:
    """Mounts the image again where one of the container's tmpfs covers it: a checkout below /tmp, for example."""
    for place in dict.fromkeys((ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())):
        if any(place.is_relative_to(target) for target in tmpfs):
            inside = f"{_NEW_ROOT}{place}"
            yield f"mkdir -p {inside} && mount --bind {place} {inside} && mount -o remount,bind,ro {inside}"


def start(run: Run, more: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start it; its output goes to `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(command_for(run, more), cwd=ROOT, stdout=file, stderr=file)


def pid_one(outer: subprocess.Popen[bytes]) -> int:
    """The container's PID 1, as this machine counts it."""
    (child,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    return int(child)
