"""Helpers of this user, or of the one that root names, try the ways out; prints whose they are, and what came of it."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import msgpack

from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from tests.support.helper_messages import request
from tests.support.hostile import STILL_WORKS, WAYS_OUT, Trial

_ALLOW, _REFUSE, _LANDLOCK = 0x7FFF0000, 0x00050000 | 1, 444


def deny_landlock() -> None:
    """From now on this process is in a container whose seccomp profile knows no Landlock."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(_ALLOW))
    assert seccomp.seccomp_rule_add_array(rules, _REFUSE, _LANDLOCK, 0, None) == 0
    assert seccomp.seccomp_load(rules) == 0


def main(user: str | None) -> None:
    helpers = Helpers(Limits(helpers=1, memory=3072), user)
    users: list[str] = []

    def read(answer: list[bytearray]) -> dict[str, str]:
        (helper,) = helpers.alive.values()
        status = Path(f"/proc/{helper.number}/status").read_text()
        users.extend(line for line in status.splitlines() if line.startswith(("Uid", "Gid", "Groups")))
        found: dict[str, str] = msgpack.loads(answer[0])["for_all"]["trial"]
        return found

    try:
        tried = helpers.rehearse(request({"x": 1}, annotations={"trial": Trial(WAYS_OUT | STILL_WORKS)}), read)
    finally:
        helpers.end()
    json.dump({"users": users, "tried": tried}, sys.stdout)


if __name__ == "__main__":
    if "without-landlock" in sys.argv:
        deny_landlock()
    main(None if sys.argv[1] == "ours" else sys.argv[1])
