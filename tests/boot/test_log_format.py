"""`--log-format json`: each line is an object in Cloud Logging's fields: the entrypoint's, its init's, and Dask's."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daskpki.boot.log import JSON, BootLog
from daskpki.boot.plan import dask_environment
from tests.support.boot_cloud import TOKEN_PATH, Cloud, plain_environ, run_entrypoint
from tests.support.booted import compute, running
from tests.support.handovers import HANDOVER
from tests.support.ports import free_port

SEVERITIES = ("DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL")


def objects(text: str) -> list[dict[str, Any]]:
    """The lines, each of which has to be an object with Cloud Logging's own fields."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert line["severity"] in SEVERITIES
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 120
        assert isinstance(line["message"], str)
        assert line["message"]
        assert set(line["logging.googleapis.com/labels"]) == {"logger"}
    return lines


def said(lines: list[dict[str, Any]], logger: str) -> list[str]:
    return [line["message"] for line in lines if line["logging.googleapis.com/labels"]["logger"] == logger]


def test_waiting_and_success(cloud: Cloud) -> None:
    cloud.metadata.fail(TOKEN_PATH, http=503)
    done = run_entrypoint(cloud.environ, "exec", "worker", "--log-format", "json", "--", "true")
    lines = objects(done.stderr)
    assert [(line["severity"], line["message"]) for line in lines] == [
        ("WARNING", "the metadata server answers 503: Injected fault: UNAVAILABLE; trying again"),
        ("INFO", f"spiffe://c.daskpki.internal/worker/worker, from {source(cloud)}; trust epoch 1"),
    ]


def source(cloud: Cloud) -> str:
    return f"DASKPKI_STORE={cloud.environ['DASKPKI_STORE']}"


def test_the_last_line_has_the_exit_code_the_cause_and_the_remedy(cloud: Cloud) -> None:
    cloud.server.disable_api("test-project")
    done = run_entrypoint(cloud.environ | {"DASKPKI_LOG_FORMAT": "json"}, "scheduler")
    (line,) = objects(done.stderr)
    assert (line["severity"], line["exit_code"], line["error"]) == ("ERROR", 5, "AccessDeniedError")
    assert done.returncode == 5
    assert line["message"] == f"{line['cause']} ({line['remedy']})"
    text = run_entrypoint(cloud.environ, "scheduler").stderr
    assert text == f"daskpki-entrypoint: error: {line['message']}\n"


@pytest.mark.parametrize(
    "argv", [("boot",), ("worker", "--log-format", "json", "--nothing"), ("exec", "--log-format=json")]
)
def test_a_wrong_command_line_is_said_in_the_form_that_it_asks_for(argv: tuple[str, ...]) -> None:
    chosen = {"DASKPKI_LOG_FORMAT": "json"} if argv == ("boot",) else {}
    done = run_entrypoint(plain_environ(**chosen), *argv)
    (line,) = objects(done.stderr)
    assert (done.returncode, line["exit_code"]) == (2, 2)


def test_another_form_is_refused() -> None:
    done = run_entrypoint(plain_environ(), "worker", "--log-format", "xml")
    assert (done.returncode, done.stderr) == (
        2,
        "daskpki-entrypoint: error: --log-format 'xml' is none of text, json\n",
    )


def test_a_fault_of_ours_is_one_line_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def faulty() -> None:
        raise ZeroDivisionError("by design")

    with pytest.raises(ZeroDivisionError) as caught:
        faulty()
    assert BootLog(JSON).report(caught.value) == 1
    (line,) = objects(capsys.readouterr().err)
    assert (line["severity"], line["exit_code"]) == ("CRITICAL", 1)
    assert "ZeroDivisionError: by design" in line["stack_trace"]


RECORDS = """
import logging, warnings
import distributed
from daskpki.cluster.audit import REFUSED, Audit
Audit(now=lambda: 7.0).record(REFUSED, peer="spiffe://c/worker/w", address="tls://h:1", detail="register-client")
logging.getLogger("distributed.core").info("began")
logging.getLogger("tornado.access").error("not shown")
logging.getLogger("distributed.batched").debug("not shown")
logging.getLogger("elsewhere").warning("shown")
logging.getLogger("elsewhere").info("not shown")
warnings.warn("careful")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("distributed.worker").exception("failed")
"""


def test_dasks_records_become_objects_and_an_audit_event_its_fields() -> None:
    environ = dask_environment(HANDOVER, "/h", plain_environ(), JSON)
    done = subprocess.run([sys.executable, "-c", RECORDS], env=environ, capture_output=True, text=True, check=True)
    audit, began, shown, warned, failed = objects(done.stderr)
    assert audit["message"] == "refused spiffe://c/worker/w tls://h:1 register-client"
    assert audit["audit"] == {
        "at": 7.0, "kind": "refused", "peer": "spiffe://c/worker/w", "address": "tls://h:1",
        "detail": "register-client", "reason": "", "first": 7.0, "times": 1,
    }  # fmt: skip
    assert (audit["severity"], began["severity"], shown["message"]) == ("WARNING", "INFO", "shown")
    assert (warned["severity"], failed["severity"]) == ("WARNING", "ERROR")
    assert "UserWarning: careful" in warned["message"]
    assert "ZeroDivisionError" in failed["stack_trace"]


def test_a_logging_configuration_of_ones_own_stands() -> None:
    own = plain_environ(DASK_LOGGING__DISTRIBUTED="warning")
    environ = dask_environment(HANDOVER, "/h", own, JSON)
    assert "DASK_LOGGING" not in environ
    assert environ["DASK_LOGGING__DISTRIBUTED"] == "warning"
    assert "DASK_LOGGING" not in dask_environment(HANDOVER, "/h", plain_environ())


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_every_line_of_a_node_is_an_object(cloud: Cloud, directory: Path, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    options = {"DASKPKI_LOG_FORMAT": "json", "NUM_WORKERS": "1", "DASKPKI_SCHEDULER": f"tls://127.0.0.1:{port}"}
    environ = cloud.environ | options
    with running(environ, log, "node", "--", "--dashboard-address", "127.0.0.1:0") as node:
        assert "42" in compute(directory / "client", port, workers=1)
        node.terminate()
        assert node.wait(30) == 0
    lines = objects(log.read_text())
    assert said(lines, "daskpki-entrypoint")[-2:] == ["worker ended with status 0", "scheduler ended with status 0"]
    for part in ("scheduler", "nanny", "worker", "daskpki"):
        assert said(lines, f"distributed.{part}")
