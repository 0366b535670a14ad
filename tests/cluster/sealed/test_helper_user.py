"""`--helper-user`: helpers run as a user of their own, also where the kernel has no Landlock; it takes root."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys

import pytest

from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from daskpki.errors import UsageError
from tests.support.hostile import STILL_WORKS, WAYS_OUT
from tests.support.paths import ROOT
from tests.support.sandbox import AS_ROOT, for_every_user

NOBODY = pwd.getpwnam("nobody")
READABLE_BY_ALL = {"the passwords", "the list of processes"}
"""Where Landlock does not restrict reading, any user may read these."""


AS_NOBODY = ("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")


@pytest.mark.parametrize(
    ("become", "user", "landlock"),
    [
        (AS_NOBODY, "ours", "with-landlock"),  # without root
        pytest.param((), "nobody", "with-landlock", marks=pytest.mark.long),
        pytest.param((), "nobody", "without-landlock", marks=pytest.mark.long),
    ],
)
def test_helpers_that_are_not_root_have_no_way_out(become: tuple[str, ...], user: str, landlock: str) -> None:
    prefix = (*AS_ROOT, "unshare", "--mount", "sh", "-c", for_every_user(), "sh", *become)
    command = [*prefix, sys.executable, "-m", "tests.support.helper_user", user, landlock]
    environ = os.environ | {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = [["Uid:", *[str(NOBODY.pw_uid)] * 4], ["Gid:", *[str(NOBODY.pw_gid)] * 4], ["Groups:"]]
    assert [line.split() for line in found["users"]] == expected
    open_to_all = READABLE_BY_ALL if landlock == "without-landlock" else set()
    assert {way for way in WAYS_OUT if found["tried"][way] != "refused"} == open_to_all
    assert {what: found["tried"][what] for what in STILL_WORKS if found["tried"][what] != "done"} == {}


def test_a_helpers_user_has_to_exist() -> None:
    with pytest.raises(UsageError, match="'nobody-of-that-name' is not a user of this machine"):
        Helpers(Limits(), "nobody-of-that-name")


ASKING = """
import sys
from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from daskpki.errors import UsageError
try:
    Helpers(Limits(), sys.argv[1])
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(("become", "user"), [((), "root"), (AS_NOBODY, "games")])
def test_helpers_become_another_user_than_root_by_root_alone(become: tuple[str, ...], user: str) -> None:
    prefix = (*AS_ROOT, "unshare", "--mount", "sh", "-c", for_every_user(), "sh", *become)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", ASKING, user],
        cwd=ROOT,
        env=os.environ | {"HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"--helper-user {user} needs a scheduler that runs as root, and another user than root\n"
