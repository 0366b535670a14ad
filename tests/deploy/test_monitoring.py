"""The alert rules and the recipe for Cloud Monitoring, judged by promtool, by a real scrape, and by gcloud."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from daskpki.boot.log import JSON
from daskpki.boot.plan import dask_environment
from daskpki.cluster.audit import KINDS
from daskpki.cluster.refusal import Reason
from tests.support.boot_cloud import plain_environ
from tests.support.doc_sessions import blocks
from tests.support.handovers import HANDOVER
from tests.support.paths import DOCS

PAGE = DOCS / "deploy" / "monitoring.md"
RULES = DOCS / "deploy" / "monitoring" / "prometheus-rules.yaml"
AGENT = DOCS / "deploy" / "monitoring" / "ops-agent.yaml"
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


# The part of the Ops Agent's configuration for metrics (docs.cloud.google.com/stackdriver/docs/managed-prometheus/
# setup-opsagent, and the agent's confgenerator/prometheus.go, which refuses honor_labels and all but static targets).
NAMED = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^(?!lib:)"}}
SCRAPE = {
    "type": "object", "additionalProperties": False, "required": ["job_name", "static_configs"],
    "properties": {"job_name": {}, "scrape_interval": {}, "scheme": {}, "metrics_path": {}, "static_configs": {}},
}  # fmt: skip
RECEIVER = {
    "type": "object", "additionalProperties": False, "required": ["type", "config"],
    "properties": {
        "type": {"const": "prometheus"},
        "config": {
            "type": "object", "additionalProperties": False, "required": ["scrape_configs"],
            "properties": {"scrape_configs": {"type": "array", "minItems": 1, "items": SCRAPE}},
        },
    },
}  # fmt: skip
PIPELINE = {
    "type": "object", "additionalProperties": False, "required": ["receivers"],
    "properties": {"receivers": {"type": "array", "minItems": 1}, "processors": {"type": "array"}},
}  # fmt: skip
AGENTS_SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["metrics"],
    "properties": {
        "metrics": {
            "type": "object", "additionalProperties": False, "required": ["receivers", "service"],
            "properties": {
                "receivers": {**NAMED, "additionalProperties": RECEIVER},
                "service": {
                    "type": "object", "additionalProperties": False, "required": ["pipelines"],
                    "properties": {"pipelines": {**NAMED, "additionalProperties": PIPELINE}},
                },
            },
        },
    },
}  # fmt: skip


def test_the_ops_agents_configuration_has_its_form_and_prometheus_takes_what_it_scrapes(tmp_path: Path) -> None:
    import jsonschema  # takes seconds to load, and every process of a run collects all modules

    text = AGENT.read_text()
    judge = jsonschema.Draft202012Validator(AGENTS_SCHEMA)
    document = yaml.safe_load(text)
    judge.validate(document)
    for broken in ("type: prometheus_simple", "honor_labels: true\n          static_configs:", "metricz:"):
        before = {"type: prometheus_simple": "type: prometheus", "metricz:": "metrics:"}.get(broken, "static_configs:")
        assert list(judge.iter_errors(yaml.safe_load(text.replace(before, broken, 1)))), broken
    receivers, pipelines = document["metrics"]["receivers"], document["metrics"]["service"]["pipelines"]
    assert {name for one in pipelines.values() for name in one["receivers"]} == set(receivers)
    file = tmp_path / "prometheus.yaml"
    for receiver in receivers.values():
        file.write_text(yaml.safe_dump(receiver["config"]))
        assert promtool("check", "config", file).returncode == 0
        file.write_text(yaml.safe_dump(receiver["config"]).replace("60s", "a minute"))
        assert promtool("check", "config", file).returncode != 0


LINES = """
import logging, sys
import distributed
from daskpki.boot.log import JSON, BootLog
from daskpki.cluster.audit import KINDS, Audit
from daskpki.errors import AccessDeniedError
audit = Audit(now=lambda: 7.0)
for kind in KINDS:
    audit.record(kind, peer=f"spiffe://c/worker/{kind}", address="tls://h:1", detail="refused")
logging.getLogger("distributed.daskpki").error("the certificate ends in an hour")
logging.getLogger("distributed.daskpki").warning("no newer trust document")
logging.getLogger("distributed.worker").error("of Dask's own")
BootLog(JSON).warn("trying again")
sys.exit(BootLog(JSON).report(AccessDeniedError("no grant", hint="grant it")))
"""


def entries() -> list[dict[str, Any]]:
    """Entries as Cloud Logging makes them of lines that a process writes: its special fields leave the payload."""
    environ = dask_environment(HANDOVER, "/h", plain_environ(), JSON)
    done = subprocess.run([sys.executable, "-c", LINES], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    found = []
    for line in done.stderr.splitlines():
        payload = json.loads(line)
        labels = payload.pop("logging.googleapis.com/labels")
        found.append({"severity": payload.pop("severity"), "labels": labels, "jsonPayload": payload})
    return found


SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL")
COMPARISON = re.compile(r'([\w.]+)(=~|>=|>|=)(\([^)]*\)|"[^"]*"|\w+)')


def matches(query: str, entry: dict[str, Any]) -> bool:
    """The part of Cloud Logging's query language that the pages use: comparisons, all of which have to hold."""
    assert not COMPARISON.sub("", query).replace("AND", "").strip(), query
    return all(holds(entry, *found) for found in COMPARISON.findall(query))


def holds(entry: dict[str, Any], path: str, operator: str, value: str) -> bool:
    found: Any = entry
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        return False
    if path == "severity":
        return SEVERITIES.index(found) >= SEVERITIES.index(value)
    wanted = re.findall(r'"([^"]*)"', value)
    if operator == "=~":
        return re.search(wanted[0], found) is not None
    return found > int(value) if operator == ">" else found in wanted


def test_the_filters_of_the_pages_find_the_lines_that_they_are_for() -> None:
    page = PAGE.read_text()
    refusals, ends = re.findall(r"--log-filter='([^']+)'", page)
    (pair,) = (one.text for one in blocks(DOCS / "deploy" / "container.md") if "labels.logger" in one.text)
    failed_boot, refused = pair.strip().splitlines()
    known = entries()

    def found(query: str) -> list[str]:
        return [entry["jsonPayload"]["message"].split()[0] for entry in known if matches(query, entry)]

    assert found(refusals) == ["turned-away", "refused"]
    assert found(ends) == ["the", "no"]  # a certificate that ends, and a boot that failed for want of a grant
    assert found(failed_boot) == ["no"]
    assert found(refused) == ["refused"]


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
