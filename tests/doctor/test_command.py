"""`daskpki doctor` on real stores: what is well, and what was broken on purpose, told apart with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daskpki.authority.ca import CertificateAuthority
from daskpki.cli.app import COMMANDS
from daskpki.confidential import Confidential
from daskpki.credentials.sources import Environment, this_process
from daskpki.doctor.checks import exit_code
from daskpki.doctor.run import Examination
from daskpki.errors import UnavailableError
from daskpki.records import RESERVED, Draft, Stamp
from daskpki.settings import parse_store_url
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.opening import open_store
from tests.emulator import MetadataServer, SecretManagerServer
from tests.emulator.names import project_number
from tests.emulator.tokens import CLOUD_PLATFORM
from tests.support.accounts import account
from tests.support.command_stores import in_cloud, on_disk
from tests.support.running import Run

NODE = "serviceAccount:vm@test-project.iam.gserviceaccount.com"


@pytest.fixture(params=["local", "grpc", "rest"])
def run(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    if request.param == "local":
        return on_disk(tmp_path, capsys, as_options=True)
    return in_cloud(request.getfixturevalue("server"), request.param, monkeypatch, capsys, as_options=True)


@pytest.fixture
def rest(server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    run = in_cloud(server, "rest", monkeypatch, capsys, as_options=True)
    run("init-ca", "--with", "scheduler,worker,client/alice")
    return run


@pytest.fixture
def here() -> Environment:
    return this_process()


def wrong(document: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [finding for finding in document if finding["severity"] == "error"]


def about(document: list[dict[str, Any]], subject: str) -> list[dict[str, Any]]:
    return [finding for finding in document if subject in finding["subject"]]


def test_nothing_is_wrong_with_a_new_cluster_and_nothing_is_changed(run: Run) -> None:
    run("init-ca", "--with", "scheduler,worker,client/alice")
    before = run("list", "--json").out
    document = run("doctor", "--json").json()
    assert not wrong(document)
    subjects = {finding["subject"] for finding in document}
    assert {"store", "CA generation 1", "trust document", "CRL of CA generation 1", "log", "certificates"} <= subjects
    assert {"severity", "subject", "reason", "remedy"} == set(document[0])
    assert run("list", "--json").out == before
    assert "3 valid" in run("doctor").out
    assert "\nok " not in f"\n{run('doctor', '--quiet').out}"


def test_a_cluster_that_is_not_there_is_told(run: Run) -> None:
    run("init-ca")
    document = run("--cluster", "other", "doctor", "--json", code=3).json()
    assert wrong(document)[0]["remedy"].endswith(" init-ca makes one")


def test_a_store_that_others_can_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = on_disk(tmp_path, capsys, as_options=True)
    run("init-ca")
    (tmp_path / "store").chmod(0o755)
    assert "chmod 700" in run("doctor", code=3).out


def test_a_reservation_that_was_left_behind_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = on_disk(tmp_path, capsys, as_options=True)
    run("init-ca")
    unlock = Unlocking(key_file=tmp_path / "store.key")
    store = open_store(parse_store_url(f"local:{tmp_path / 'store'}"), unlock=unlock)
    body = {"serial": "abc", "role": "worker", "name": "w", "issuer": 1, "not_before": 1, "not_after": 1 << 40}
    died = Stamp(1000, "op", "who", "a command that died")
    CertificateAuthority(store).session.commit(lambda _: [Draft(RESERVED, body)], died)
    store.close()
    found = about(run("doctor", "--json").json(), "worker/w")
    assert "the command was killed" in found[0]["reason"]
    run("issue", "worker", "--name", "x")  # what the remedy promises: the next command that opens the CA's key
    assert not about(run("doctor", "--json").json(), "worker/w")


def test_a_disabled_newest_version_is_found_and_its_remedy_mends_it(rest: Run) -> None:
    secret = "daskpki_default_worker_worker"
    store = open_store(parse_store_url("gsm://my-project"))
    store.secrets.disable(secret, 1)
    found = wrong(rest("doctor", "--json", code=3).json())
    assert [finding["subject"] for finding in found] == [secret]
    assert found[0]["remedy"] == f"gcloud secrets versions enable 1 --secret={secret} --project=my-project"
    store.secrets.enable(secret, 1)
    store.close()
    assert not wrong(rest("doctor", "--json").json())


@pytest.mark.parametrize("label", ["daskpki-format", "daskpki-kind", "daskpki-name"])  # the control comes first
def test_a_secret_that_lost_a_label_is_examined_by_its_id(rest: Run, label: str) -> None:
    with closing(open_store(parse_store_url("gsm://my-project"))) as store:
        info = store.secrets.describe("daskpki_default_worker_worker")
        kept = {key: value for key, value in info.labels.items() if key != label}
        store.secrets.update(info.id, etag=info.etag, labels=kept)
        store.secrets.destroy(info.id, 1)
    found = wrong(rest("doctor", "--json", code=3).json())
    assert [str(finding["remedy"]).endswith(" renew worker/worker") for finding in found] == [True]


def test_a_wrong_clock_is_seen_by_the_date_of_a_reply(server: SecretManagerServer, rest: Run) -> None:
    assert about(rest("doctor", "--json").json(), "clock")[0]["severity"] == "ok"
    server.skew_date(3600)
    clock = about(rest("doctor", "--json", code=3).json(), "clock")[0]
    assert (clock["severity"], "s behind Secret Manager's" in clock["reason"]) == ("error", True)


def test_grants_that_are_too_wide_and_too_narrow_are_told(rest: Run) -> None:
    rest("grant", "worker", "--to", NODE)
    rest("grant", "scheduler", "--to", "serviceAccount:s@test-project.iam.gserviceaccount.com")
    rest("grant", "client/alice", "--to", "user:alice@example.com")
    document = rest("doctor", "--json").json()
    assert not [finding for finding in document if "too narrow" in finding["reason"]]
    assert any("organisation" in finding["reason"] for finding in about(document, "grants"))
    rest("grant", "client/alice", "--to", NODE)
    wide = wrong(rest("doctor", "--json", code=3).json())
    assert any("reads" in finding["reason"] and NODE in finding["reason"] for finding in wide)


def test_every_remedy_names_a_command_that_exists(server: SecretManagerServer, rest: Run) -> None:
    server.skew_date(3600)
    rest("renew", "worker/worker")
    remedies = [finding["remedy"] or "" for finding in rest("doctor", "--json", code=3).json()]
    ours = [part.split() for remedy in remedies for part in remedy.split("; ") if part.startswith("daskpki ")]
    named = {next(word for word in words[1:] if word in COMMANDS) for words in ours}
    assert {"login", "grant"} <= named
    assert all("--store" in words[1] for words in ours)


@contextmanager
def vm(server: SecretManagerServer, metadata: MetadataServer, home: Path) -> Iterator[Run]:
    """Commands by the identity of a VM."""
    environ = {"DASKPKI_SECRET_MANAGER_ENDPOINT": server.rest_url, "HOME": str(home)}
    with account(metadata, "--store", "gsm://my-project", environ=environ) as run:
        yield run


@pytest.mark.usefixtures("rest")
def test_missing_grant_wrong_scope_and_api_off_are_told_apart(server: SecretManagerServer, tmp_path: Path) -> None:
    server.iam.grant("my-project", "roles/secretmanager.viewer", "user:nobody@example.com")  # enforced from now on
    metadata = MetadataServer(server.tokens, project="my-project")
    with vm(server, metadata, tmp_path) as run:
        no_grant = run("doctor", "--json", code=3).json()
        metadata.scopes = ("https://www.googleapis.com/auth/logging.write",)
        no_scope = run("doctor", "--json", code=3).json()
        metadata.scopes = (CLOUD_PLATFORM,)
        server.disable_api("my-project")
        api_off = run("doctor", "--json", code=3).json()
    remedies = [{finding["remedy"] for finding in wrong(found)} for found in (no_grant, no_scope, api_off)]
    assert any("grant roles/secretmanager" in remedy for remedy in remedies[0])
    assert any("--scopes cloud-platform" in remedy for remedy in remedies[1])
    consumer = project_number("my-project")  # which Google names by its number
    assert remedies[2] == {f"gcloud services enable secretmanager.googleapis.com --project {consumer}"}
    assert not remedies[0] & remedies[1]


@pytest.mark.usefixtures("rest")
def test_a_node_or_person_is_told_what_is_for_operators(server: SecretManagerServer, tmp_path: Path) -> None:
    for kind in ("trust", "revoked"):
        prefix = f"daskpki_default_{kind}"
        server.iam.grant_prefix("my-project", "roles/secretmanager.secretAccessor", NODE, prefix=prefix)
    with vm(server, MetadataServer(server.tokens, project="my-project"), tmp_path) as run:
        document = run("doctor", "--json").json()
    assert wrong(document) == []
    assert about(document, "trust document")[0]["severity"] == "ok"
    assert about(document, "log")[0]["remedy"] == "ask an operator to run daskpki --store=gsm://my-project doctor"


def test_a_leaf_whose_secret_is_gone_or_has_a_version_of_others_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = on_disk(tmp_path, capsys, as_options=True)
    run("init-ca", "--with", "scheduler,worker")
    unlock = Unlocking(key_file=tmp_path / "store.key")
    store = open_store(parse_store_url(f"local:{tmp_path / 'store'}"), unlock=unlock)
    store.secrets.add("daskpki_default_scheduler_scheduler", Confidential(b"{}"))
    store.secrets.delete("daskpki_default_worker_worker")
    store.close()
    document = run("doctor", "--json", code=3).json()
    (gone,) = wrong(document)
    assert gone["subject"] == "daskpki_default_worker_worker"
    assert gone["remedy"].endswith(" renew worker/worker")
    foreign = about(document, "daskpki_default_scheduler_scheduler")[0]
    assert "version, 2, is not the one that the log confirms (1)" in foreign["reason"]
    for leaf in ("worker/worker", "scheduler/scheduler"):
        run("renew", leaf)
    mended = run("doctor", "--json").json()
    assert not [finding for finding in mended if "the log confirms" in finding["reason"]]


def test_a_store_that_does_not_answer_is_temporary(here: Environment) -> None:
    def opened() -> AbstractContextManager[CertificateAuthority]:
        raise UnavailableError("gsm://my-project does not answer", hint="try again in a minute")

    findings = Examination(opened, here).run()
    assert exit_code(findings) == 75
    assert ("store", "try again in a minute") in [(finding.subject, finding.remedy) for finding in findings]
