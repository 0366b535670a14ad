"""The other places where material comes from: a local store, and tokens by google-auth for whoever is not on a VM."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from daskpki.boot.init import WAITED_FOR
from daskpki.boot.launch import boot
from daskpki.errors import AccessDeniedError, NotFoundError, NotTrustedError, UnavailableError
from tests.emulator.http_listener import HttpReply, HttpRequest, serving
from tests.support.boot_cloud import Cloud, boot_here, fill, plain_environ, service_account
from tests.support.material import Cluster


def test_a_local_store_boots_and_says_what_it_lacks(cluster: Cluster, tmp_path: Path) -> None:
    environ = fill(cluster, tmp_path / "store", tmp_path / "key")
    started = boot_here(environ, "worker", "--scheduler", "tls://h")
    assert started.handover is not None
    assert started.handover.store == f"local:{tmp_path / 'store'}"
    with pytest.raises(NotFoundError, match="no credential worker/w9"):
        boot_here(environ, "worker", "--scheduler", "tls://h", "--name", "w9")
    del environ["DASKPKI_KEY_FILE"]
    with pytest.raises(AccessDeniedError, match="locked"):
        boot_here(environ, "worker", "--scheduler", "tls://h")


def test_a_persons_directory_is_told_from_a_machines(directory: Path) -> None:
    """As the shell has it in which somebody has followed the hint of `export client/alice`."""
    environ = plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory / "client"))
    with pytest.raises(NotFoundError, match="a node needs subdirectories scheduler and worker") as refusal:
        boot_here(environ, "node")
    assert "unset it in this shell" in str(refusal.value.hint)
    with pytest.raises(NotTrustedError, match="has the role client, but a scheduler is to be started") as refused:
        boot_here(environ, "scheduler")
    assert "unset DASKPKI_CREDENTIAL_DIR" in str(refused.value.hint)


def test_a_local_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        boot_here(plain_environ(DASKPKI_STORE=f"local:{tmp_path / 'none'}"), "scheduler")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def token_endpoint(cloud: Cloud, *, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """What stands for https://oauth2.googleapis.com/token: its URL, and the grant types that it was asked for."""
    grants: list[str] = []

    def answer(request: HttpRequest) -> HttpReply:
        grants.extend(parse_qs(request.body.decode())["grant_type"])
        token = cloud.server.tokens.issue("user:alice@example.com")
        body = {"access_token": token.text, "expires_in": 3599} if status == 200 else {"error": "invalid_grant"}
        return HttpReply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    with serving(answer) as address:
        yield f"http://{address}/token", grants


def test_a_service_accounts_key_comes_before_the_metadata_server(cloud: Cloud, tmp_path: Path) -> None:
    with token_endpoint(cloud) as (url, grants):
        file = service_account(tmp_path / "sa.json", url)
        assert boot_here(cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}, "scheduler").started
    assert grants == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert cloud.metadata.count() == 0
    assert cloud.server.count() == 3


def test_gclouds_own_file_is_found(cloud: Cloud, tmp_path: Path) -> None:
    with token_endpoint(cloud) as (url, grants):
        service_account(tmp_path / ".config" / "gcloud" / "application_default_credentials.json", url)
        assert boot_here(cloud.environ | {"HOME": str(tmp_path)}, "scheduler").started
    assert len(grants) == 1
    assert cloud.metadata.count() == 0


def test_a_refused_file_is_named_with_the_way_out(cloud: Cloud, tmp_path: Path) -> None:
    with token_endpoint(cloud, status=400) as (url, _):
        file = service_account(tmp_path / "adc.json", url)
        with pytest.raises(AccessDeniedError, match="give no access token: invalid_grant") as caught:
            boot_here(cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}, "scheduler")
    assert "another file in GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value.hint)


@pytest.mark.parametrize("content", ["", "{}", '{"type": "unheard-of"}', "[]"])
def test_a_file_that_is_none_is_refused(cloud: Cloud, tmp_path: Path, content: str) -> None:
    (tmp_path / "adc.json").write_text(content)
    with pytest.raises(AccessDeniedError, match="GOOGLE_APPLICATION_CREDENTIALS does not name a file with usable"):
        boot_here(cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "adc.json")}, "scheduler")


def test_a_token_endpoint_that_is_away_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    file = service_account(tmp_path / "adc.json", "http://127.0.0.1:9/token")
    environ = cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "DASKPKI_DEADLINE": "1"}
    with pytest.raises(UnavailableError, match="gave up at the deadline: no access token"):
        boot_here(environ, "scheduler")


def test_a_node_whose_init_cannot_start_leaves_no_program_behind(cloud: Cloud) -> None:
    parent, children = os.getpid(), Path(f"/proc/self/task/{threading.get_native_id()}/children")
    before = set(children.read_text().split())

    def execve(_file: str, _argv: list[str], _environ: dict[str, str]) -> None:
        if os.getpid() == parent:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        os.execv("/bin/sleep", ["sleep", "5"])  # noqa: S606 - a program that would stay

    with pytest.raises(UnavailableError, match="the programs cannot be started: Cannot allocate memory"):
        boot(["node"], cloud.environ, execve)
    started = [int(process) for process in set(children.read_text().split()) - before]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & WAITED_FOR
    assert len(started) == 2
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started] == [-signal.SIGKILL] * 2
