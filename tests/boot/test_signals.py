"""As PID 1, for which the kernel has no default action, a boot ends by TERM, HUP, QUIT and INT in every phase."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.boot_cloud import ENTRYPOINT, TOKEN_PATH, Cloud, service_account
from tests.support.booted import LONG, until
from tests.support.sandbox import OWN_PIDS

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)


def signalled(environ: dict[str, str], number: signal.Signals, wait: Callable[[], object]) -> tuple[int, float, str]:
    """Exit code of a boot as PID 1 that got the signal once `wait` returned, how long that took, and what it said."""
    command = [*OWN_PIDS, *ENTRYPOINT, "exec", "worker", "--", "true"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
            os.kill(int(children[0]), number)
            begin = time.monotonic()
            _, said = process.communicate(timeout=LONG / 2)
            return process.returncode, time.monotonic() - begin, said
        finally:
            process.kill()


def assert_ended(number: signal.Signals, outcome: tuple[int, float, str]) -> None:
    code, took, said = outcome
    assert code == 128 + number
    assert took < 5
    assert "Traceback" not in said


@pytest.mark.parametrize("number", SIGNALS)
def test_while_the_metadata_server_is_mute(cloud: Cloud, number: signal.Signals) -> None:
    cloud.metadata.fail(TOKEN_PATH, latency=LONG)
    assert_ended(number, signalled(cloud.environ, number, until(cloud.metadata.count)))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("fault", [{"latency": LONG}, {"http": 503}], ids=["mute", "503 and waiting"])
def test_while_secret_manager_gives_nothing(cloud: Cloud, number: signal.Signals, fault: dict[str, float]) -> None:
    cloud.server.fail("AccessSecretVersion", times=None, **fault)
    assert_ended(number, signalled(cloud.environ, number, until(cloud.server.count)))


@pytest.mark.parametrize("number", SIGNALS)
def test_while_google_auth_waits_for_a_token(cloud: Cloud, tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(LONG)
        file = service_account(tmp_path / "account.json", f"http://127.0.0.1:{mute.getsockname()[1]}/token")
        environ = cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
        assert_ended(number, signalled(environ, number, mute.accept))
