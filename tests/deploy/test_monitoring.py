"""The alert rules and the recipe for Cloud Monitoring, judged by promtool, by a real scrape, and by gcloud."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from daskpki.cluster.audit import KINDS
from daskpki.cluster.reasons import Reason
from tests.support.doc_sessions import blocks
from tests.support.paths import DOCS

PAGE = DOCS / "deploy" / "monitoring.md"
RULES = DOCS / "deploy" / "monitoring" / "prometheus-rules.yaml"
DAY = 86400


def promtool(*words: str | Path, data: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *words], input=data, capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stderr
    (tmp_path / "broken.yaml").write_text(RULES.read_text().replace("- time()", "- time("))
    assert promtool("check", "rules", tmp_path / "broken.yaml").returncode != 0


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


QUIET = {
    'up{job="daskpki",instance="a"}': "1x120",
    'daskpki_certificate_not_after_seconds{instance="a"}': f"{20 * DAY}x120",
    'daskpki_first_peer_not_after_seconds{instance="a",role="worker"}': f"{20 * DAY}x120",
    'daskpki_ca_not_after_seconds{generation="1",state="active"}': f"{900 * DAY}x120",
    'daskpki_revocation_next_update_seconds{instance="a"}': f"{6 * DAY}x120",
    'daskpki_trust_epoch{instance="a"}': "7x120",
    'daskpki_trust_epoch{instance="b"}': "7x120",
    **{f'daskpki_refused_total{{instance="a",reason="{reason}"}}': "0+0x120" for reason in Reason},
}


def refused(reason: Reason, a_minute: int) -> dict[str, str]:
    return {f'daskpki_refused_total{{instance="a",reason="{reason}"}}': f"0+{a_minute}x120"}


LOUD = {
    "DaskpkiDown": {'up{job="daskpki",instance="a"}': "0x120"},
    "DaskpkiCertificateEndsSoon": {'daskpki_certificate_not_after_seconds{instance="a"}': f"{2 * DAY}x120"},
    "DaskpkiPeerCertificateEndsSoon": {
        'daskpki_first_peer_not_after_seconds{instance="a",role="worker"}': f"{1 * DAY}x120"
    },
    "DaskpkiCaEndsSoon": {'daskpki_ca_not_after_seconds{generation="1",state="active"}': f"{30 * DAY}x120"},
    "DaskpkiRevocationListStale": {'daskpki_revocation_next_update_seconds{instance="a"}': f"{DAY // 2}x120"},
    "DaskpkiNodesDisagree": {'daskpki_trust_epoch{instance="b"}': "6x120"},
    "DaskpkiRevokedInUse": refused(Reason.REVOKED, 1),
    "DaskpkiUnknownCa": refused(Reason.UNKNOWN_CA, 1),
    "DaskpkiWrongRole": refused(Reason.ROLE, 1),
    "DaskpkiForbiddenOperation": refused(Reason.PICKLE, 1),
    "DaskpkiForgedTrustDocument": refused(Reason.TRUST_DOCUMENT, 1),
    "DaskpkiManyRefusals": refused(Reason.TLS, 10),
}


@pytest.mark.parametrize("alert", [None, *LOUD])
def test_each_alert_fires_on_its_cause_alone(alert: str | None, tmp_path: Path) -> None:
    assert alerts().keys() == LOUD.keys()
    series = {**QUIET, **(LOUD[alert] if alert else {})}
    # `count by (alertname)` is empty where nothing fires.
    fired = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "100m", "exp_samples": fired}
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_reason_has_an_alert_and_every_kind_of_event_exists() -> None:
    named = [
        reason for text in re.findall(r'reason=~?"([^"]+)"', " ".join(alerts().values())) for reason in text.split("|")
    ]
    assert sorted(named) == sorted(Reason)
    for kind in re.findall(r'"([a-z-]+)"', " ".join(re.findall(r"kind=\(([^)]*)\)", PAGE.read_text()))):
        assert kind in KINDS


@pytest.mark.needs_gcloud
def test_gcloud_knows_the_commands_of_the_page(tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks(PAGE) if block.language == "sh")
    commands = [shlex.join(shlex.split(line)) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    file = tmp_path / "commands"
    file.write_text(json.dumps([{"command_string": one} for one in (*commands, commands[0] + " --no-such-option=1")]))
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    environment = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(lint, env=environment, capture_output=True, text=True, check=False)
    judged = json.loads(done.stdout.splitlines()[0])
    assert [one["success"] for one in judged] == [*([True] * len(commands)), False], judged
