"""The cluster's other secrets, mounted at boot: where they go, who gets them, and where they are not."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskpki
from daskpki import secret_names
from daskpki.boot.memfd import is_tmpfs
from daskpki.boot.mounts import Mount, MountedFiles, _on_the_way, file_variable, parse_mounts
from daskpki.confidential import Confidential
from daskpki.errors import (
    AccessDeniedError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    NotTrustedError,
    PolicyError,
    UnavailableError,
    UsageError,
)
from daskpki.handover import VARIABLE, Handover, encode_handover
from tests.support.boot_cloud import Cloud, boot_here, run_entrypoint
from tests.support.key_search import Canary
from tests.support.sandbox import AS_ROOT

VALUE = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(12)) + b"\x00\xff\n"
SHM = Path("/dev/shm")
READ = """
import hashlib, json, os, sys
import daskpki
from pathlib import Path
name = sys.argv[1]
path = os.environ[f"DASKPKI_SECRET_{name.upper().replace('-', '_')}_FILE"]
digest = hashlib.sha256(daskpki.secret(name)).hexdigest()
same = daskpki.secret(name) == Path(path).read_bytes()
mode = oct(os.stat(path).st_mode & 0o777)
everything = Path("/proc/self/environ").read_bytes() + Path("/proc/self/cmdline").read_bytes()
print(json.dumps({"digest": digest, "same": same, "path": path, "mode": mode, "around": everything.decode("latin-1")}))
"""


def seed(cloud: Cloud, name: str, *values: bytes) -> str:
    secret = f"{cloud.parent}/secrets/{secret_names.user_secret_id(cloud.cluster.name, name)}"
    return cloud.server.seed(secret, *values, labels=cloud.cluster.labels(secret_names.SECRET, name))


@pytest.mark.parametrize(
    ("text", "mounts"),
    [
        ("a=fd", [Mount("a")]),
        ("a@3=fd", [Mount("a", 3)]),
        ("a=/run/secrets/a, b=fd", [Mount("a", None, "/run/secrets/a"), Mount("b")]),
        ("a=/run/x=y", [Mount("a", None, "/run/x=y")]),
        ("", []),
        (" , ", []),
    ],
)
def test_what_is_to_be_mounted(text: str, mounts: list[Mount]) -> None:
    assert list(parse_mounts(text, in_environment=False)) == mounts


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=",
        "=fd",
        "A_b=fd",
        "a@latest=fd",
        "a@0=fd",
        "a@=fd",
        "a=relative/path",
        "a=/run/",
        "a=/run/../etc/a",
        "a=/run/./a",
        "a=env:",
        "a=env:2x",
        "a=env:LD_PRELOAD",
        "a=env:DASKPKI_STORE",
        "a=fd,a=/run/a",
        "a=/run/x,b=/run/x",
        "a=env:X,b=env:X",
    ],
)
def test_what_is_no_mount_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(UsageError, match=r"--secret|secret name"):
        parse_mounts(text, in_environment=True)


@given(st.text(alphabet="ab-_@=/.,:fdenv012 ", max_size=40))
def test_any_text_is_mounts_or_a_refusal(text: str) -> None:
    try:
        mounts = parse_mounts(text, in_environment=False)
    except DaskpkiError:
        return
    for mount in mounts:
        assert mount.variable is None
        assert mount.path is None or (mount.path.startswith("/") and ".." not in mount.path.split("/"))


def test_the_environment_is_refused_unless_asked_for() -> None:
    with pytest.raises(PolicyError, match=r"/proc/PID/environ") as refused:
        parse_mounts("a=env:PGPASSWORD", in_environment=False)
    assert "--allow-secrets-in-environment" in (refused.value.hint or "")
    assert parse_mounts("a=env:PGPASSWORD", in_environment=True) == (Mount("a", None, None, "PGPASSWORD"),)


@pytest.mark.parametrize("reference", ["sm://project/secret", "gsm://project/secret#3", "vault://kv/db#password"])
def test_references_are_refused_and_elsewhere_left_as_they_are(cloud: Cloud, reference: str) -> None:
    with pytest.raises(PolicyError, match="references are refused") as refused:
        boot_here(cloud.environ, "exec", "worker", "--secret", f"db={reference}", "--", "true")
    assert "daskpki secret set" in (refused.value.hint or "")
    assert cloud.server.count() == 0
    started = boot_here(cloud.environ | {"DB_PASSWORD": reference}, "exec", "worker", "--", "true")
    assert started.environ["DB_PASSWORD"] == reference
    assert not [request for request in cloud.requests if "secret_" in request]


def test_a_new_value_is_seen_at_the_next_start(cloud: Cloud) -> None:
    seed(cloud, "db-password", b"old")
    argv = ("exec", "worker", "--secret", "db-password=env:PW", "--allow-secrets-in-environment", "--", "true")
    first = boot_here(cloud.environ, *argv)
    seed(cloud, "db-password", b"new")
    assert (first.environ["PW"], boot_here(cloud.environ, *argv).environ["PW"]) == ("old", "new")


def test_a_program_reads_what_was_mounted_and_it_is_nowhere_else(cloud: Cloud, tmp_path: Path) -> None:
    """As a descriptor and as a file; in neither environment nor arguments, and on no disk."""
    seed(cloud, "db-password", b"old", VALUE)
    seed(cloud, "token", VALUE)
    place = SHM / f"daskpki-test-{os.getpid()}"
    environ = {**cloud.environ, "DASKPKI_NAME": "alice", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    options = ("--secret", "db-password=fd", f"--secret=token={place}/deep/token")
    canary = Canary({"VALUE": Confidential(VALUE)})
    try:
        told = {}
        for name in ("db-password", "token"):
            done = run_entrypoint(environ, "exec", "client", *options, "--", sys.executable, "-c", READ, name)
            assert done.returncode == 0, done.stderr
            told[name] = json.loads(done.stdout)
            assert told[name]["same"]
            assert told[name]["mode"] == "0o400"
            assert not canary.in_bytes("around", told[name]["around"].encode("latin-1"))
            assert not canary.in_bytes("stderr", done.stderr.encode())
        assert told["db-password"]["path"].startswith("/proc/")
        assert told["token"]["path"] == f"{place}/deep/token"
        assert stat.S_IMODE((place / "deep").stat().st_mode) == 0o700
        assert [finding.place for finding in canary.in_files([place])] == [f"{place}/deep/token"] * len(
            canary.in_bytes("planted", VALUE)
        )  # the control: the search finds what is there
    finally:
        subprocess.run(["rm", "-r", str(place)], check=True)
    assert not canary.in_files([tmp_path])


def test_a_version_can_be_pinned_and_costs_one_request(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    seed(cloud, "s", b"one", b"two")
    cloud.server.reset_journal()
    recorder = boot_here(cloud.environ, "scheduler", "--secret", "s@1=fd")
    assert recorder.started
    assert cloud.requests.count("secret_s/versions/1") == 1
    assert len(cloud.requests) == 4
    capfd.readouterr()


def test_the_variable_is_set_where_it_was_allowed(cloud: Cloud) -> None:
    seed(cloud, "s", b"text")
    environ = {**cloud.environ, "DASKPKI_SECRETS": "s=env:PGPASSWORD"}
    with pytest.raises(PolicyError):
        boot_here(environ, "scheduler")
    recorder = boot_here(environ, "scheduler", "--allow-secrets-in-environment")
    assert recorder.environ["PGPASSWORD"] == "text"
    seed(cloud, "odd", b"\xff")
    with pytest.raises(UsageError, match="is not text"):
        boot_here({**environ, "DASKPKI_SECRETS": "odd=env:X"}, "scheduler", "--allow-secrets-in-environment")


def test_a_worker_reads_its_own_secret_and_is_refused_another_with_the_missing_grant_named(cloud: Cloud) -> None:
    accessor, member = "roles/secretmanager.secretAccessor", f"serviceAccount:{cloud.metadata.account}"
    for kind in ("worker_worker", "trust", "revoked", "secret_granted"):
        prefix = f"daskpki_{cloud.cluster.name}_{kind}"
        cloud.server.iam.grant_prefix("test-project", accessor, member, prefix=prefix)
    seed(cloud, "granted", VALUE)
    seed(cloud, "other", VALUE)
    environ = {**cloud.environ, "DASKPKI_SCHEDULER": "tls://10.0.0.2:8786", "DASKPKI_DEADLINE": "2"}
    recorder = boot_here(environ, "worker", "--secret", "granted=fd")
    assert recorder.handover is not None
    assert set(recorder.handover.secrets) == {"granted"}
    with pytest.raises(UnavailableError, match=r"secretmanager\.versions\.access is not granted") as refused:
        boot_here(environ, "worker", "--secret", "other=fd")
    expected = f"gcloud secrets add-iam-policy-binding daskpki_{cloud.cluster.name}_secret_other"
    assert (refused.value.hint or "").startswith(expected)
    assert member in (refused.value.hint or "")


def test_a_secret_that_is_not_there_ends_the_boot_with_the_command_that_sets_it(cloud: Cloud) -> None:
    with pytest.raises(NotFoundError) as refused:
        boot_here(cloud.environ, "scheduler", "--secret", "absent=fd")
    assert refused.value.hint == f"daskpki --cluster {cloud.cluster.name} secret set absent"


def test_a_directory_holds_no_other_secrets(directory: Path) -> None:
    with pytest.raises(UsageError, match="--secret 'a=fd' reads a store"):
        boot_here({}, "scheduler", "--credential-dir", str(directory / "scheduler"), "--secret", "a=fd")


def test_a_disk_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    seed(cloud, "s", VALUE)
    if is_tmpfs(str(tmp_path)):
        tmp_path = Path(__file__).parent  # the checkout is on a disk
    with pytest.raises(NotTrustedError, match="would lie on a disk"):
        boot_here(cloud.environ, "scheduler", "--secret", f"s={tmp_path}/new/s")
    assert not (tmp_path / "new").exists()


def test_a_boot_that_fails_leaves_no_file_and_a_new_one_replaces_the_old(cloud: Cloud) -> None:
    seed(cloud, "s", VALUE)
    path = SHM / f"daskpki-test-{os.getpid()}-s"
    path.write_bytes(b"of an earlier boot")
    recorder = boot_here(cloud.environ, "scheduler", "--secret", f"s={path}")  # its exec only records, so it returned
    assert recorder.started
    assert not path.exists()


def test_what_is_no_file_is_not_replaced() -> None:
    path = SHM / f"daskpki-test-{os.getpid()}-link"
    path.symlink_to("/etc/passwd")
    try:
        with pytest.raises(AccessDeniedError, match="something else than a file"):
            MountedFiles().write(str(path), VALUE)
        assert path.is_symlink()
    finally:
        path.unlink()


def test_on_a_node_the_secrets_are_its_workers(cloud: Cloud) -> None:
    from daskpki.boot.launch import become, prepare
    from daskpki.boot.options import parse_arguments
    from daskpki.boot.plan import plan_programs
    from daskpki.boot.settings import parse_settings

    seed(cloud, "s", VALUE)
    checked = prepare(parse_settings(parse_arguments(["node", "--secret", "s=fd"]), cloud.environ), cloud.environ)
    told: dict[str, bool] = {}
    for program in plan_programs(checked.settings, (), 1):

        def note(_command: str, _argv: list[str], variables: dict[str, str], role: str = program.role.value) -> None:
            told[role] = file_variable("s") in variables

        become(checked, program, cloud.environ, note)
    assert told == {"scheduler": False, "worker": True}


def test_python_says_how_a_secret_would_be_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASKPKI_HANDOVER", raising=False)
    with pytest.raises(NotFoundError, match="'db-password' is not mounted") as refused:
        daskpki.secret("db-password")
    assert "--secret db-password=fd" in (refused.value.hint or "")
    with pytest.raises(UsageError):
        daskpki.secret("../etc/passwd")


def test_a_secret_that_is_gone_is_told_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, mounted = ("cert.pem", "key.pem", "ca.pem", "trust.json"), tmp_path / "db"
    handover = Handover("lab", "lab.internal", "worker", "w", *files, "limited", "off", "1.3")
    (tmp_path / "handover.json").write_bytes(encode_handover(handover._replace(secrets={"db": str(mounted)})))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "handover.json"))
    mounted.write_bytes(VALUE)
    assert daskpki.secret("db") == VALUE
    mounted.unlink()
    with pytest.raises(CorruptError) as refused:
        daskpki.secret("db")
    assert str(refused.value) == f"the secret 'db' at {mounted} cannot be read: No such file or directory"
    assert "start this one through that again" in str(refused.value.hint)


def test_the_variables_of_two_secrets_never_meet() -> None:
    assert file_variable("db-password") == "DASKPKI_SECRET_DB_PASSWORD_FILE"


@pytest.mark.parametrize("way", ["below", "deep below", "through a link of theirs", "through our link to theirs"])
def test_nothing_is_mounted_below_another_users_directory(way: str) -> None:
    """Who owns a directory on the way puts another one in its place at any time. Needs root, to make one."""
    theirs = Path(tempfile.mkdtemp(dir=SHM))
    ours = Path(tempfile.mkdtemp(dir=SHM))
    try:
        if "link" in way:
            (theirs / "link").symlink_to(ours / "here")
            (ours / "here").mkdir()
            (ours / "link").symlink_to(theirs / "link")
            target = (theirs if way == "through a link of theirs" else ours) / "link" / "x"
        else:
            target = theirs / "x" if way == "below" else theirs / "a" / "b" / "x"
            target.parent.mkdir(parents=True, exist_ok=True)
        files = MountedFiles()
        files.write(str(target), VALUE)  # while it is our own
        files.clear()
        become_root(["chown", "--no-dereference", "4711", str(theirs)])
        with pytest.raises(AccessDeniedError, match=rf"below {theirs}, which belongs to another user \(uid 4711\)"):
            files.write(str(target), VALUE)
        assert not target.exists()
    finally:
        become_root(["rm", "-r", str(theirs), str(ours)])


@pytest.mark.parametrize("kind", ["directory", "disk"])
def test_a_missing_directory_that_another_user_makes_first_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """In a directory that everybody may write to, such as /dev/shm, between our look and our own mkdir."""
    theirs = Path(tempfile.mkdtemp(dir=SHM))
    shared = Path(tempfile.mkdtemp(dir=SHM))
    become_root(["chown", "4711", str(theirs)])
    make = Path.mkdir

    def be_late(path: Path, mode: int, *, parents: bool, exist_ok: bool) -> None:
        (shared / "new").symlink_to(theirs if kind == "directory" else tmp_path)
        make(path, mode, parents=parents, exist_ok=exist_ok)

    monkeypatch.setattr(Path, "mkdir", be_late)
    try:
        with pytest.raises((AccessDeniedError, NotTrustedError), match=r"belongs to another user|would lie on a disk"):
            MountedFiles().write(str(shared / "new" / "x"), VALUE)
        assert not list(tmp_path.iterdir())
    finally:
        become_root(["rm", "-r", str(theirs), str(shared)])


def test_a_circle_of_links_ends() -> None:
    place = Path(tempfile.mkdtemp(dir=SHM))
    try:
        (place / "a").symlink_to("./b/../a")
        (place / "b").symlink_to("./a")
        assert {str(place), str(place / "a"), str(place / "b")} <= {
            os.path.normpath(found) for found in _on_the_way(place / "a" / "x" / "file")
        }
    finally:
        become_root(["rm", "-r", str(place)])


def test_one_file_that_is_gone_keeps_no_other_one() -> None:
    place = Path(tempfile.mkdtemp(dir=SHM))
    files = MountedFiles()
    for name in ("a", "b", "c"):
        files.write(str(place / name), VALUE)
    (place / "b").unlink()
    files.clear()
    place.rmdir()


def become_root(command: list[str]) -> None:
    subprocess.run([*AS_ROOT, *command], check=True)
