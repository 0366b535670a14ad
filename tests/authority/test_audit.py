"""`daskpki audit` shows what was done, and notices what was done to the log."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daskpki.confidential import Confidential
from daskpki.settings import GsmUrl, LocalUrl
from daskpki.store.append_chain import Link
from daskpki.store.gsm.log_format import LogHead, decode_part, encode_part
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.local.store import LocalStore
from daskpki.store.local.table_seal import TableSeal
from daskpki.store.opening import open_store
from tests.emulator import SecretManagerServer
from tests.support.running import Run, runner


def test_everything_that_was_done_is_shown(run: Run) -> None:
    run("init-ca", "--with", "client/alice")
    run("revoke", "client/alice", "--reason", "keyCompromise")
    records = run("audit", "--json").json()
    events = [record["event"] for record in records]
    assert events[:4] == ["ca-reserved", "ca-created", "ca-activated", "published"]
    assert events[-4:] == ["issued", "revoking", "published", "revoked"]
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["command"] == "daskpki revoke"
    assert run("audit", "--since", "5", "--json").json() == records[4:]
    rows = list(csv.DictReader(io.StringIO(run("audit", "--csv").out)))
    assert [row["hash"] for row in rows] == [record["hash"] for record in records]
    shown = run("audit").out
    assert "client/alice serial " in shown
    assert "(keyCompromise)" in shown
    assert "no records from number 99 on" in run("audit", "--since", "99").out
    assert run("audit", "--since", "99", "--json").json() == []


def test_changes_of_user_secrets_are_shown_by_name_and_version(run: Run, tmp_path: Path) -> None:
    run("init-ca")
    value = tmp_path / "value"
    for text in ("one", "two"):
        value.write_text(text)
        run("secret", "set", "db", "--file", str(value))
    run("secret", "rollback", "db")
    run("secret", "disable", "db", "1")
    shown = [line.split(maxsplit=2) for line in run("audit").out.splitlines() if line.startswith("events/")]
    assert [line[0] for line in shown] == ["events/1", "events/2", "events/3", "events/4"]
    kinds = ("secret-added  ", "secret-added  ", "secret-added  ", "secret-disabled  ")
    versions = ("version 1", "version 2", "version 3, the value of version 1", "version 1")
    for (_, _, rest), kind, version in zip(shown, kinds, versions, strict=True):
        assert kind in f"{rest}", rest
        assert rest.endswith(f"secret db, {version}")
    assert [record["seq"] for record in run("audit", "--json").json()][-4:] == [1, 2, 3, 4]


def test_a_log_that_holds_is_said_to(run: Run) -> None:
    run("init-ca", "--with", "client/alice,worker")
    run("renew", "worker")
    run("revoke", "client/alice")
    told = run("audit", "--verify", "--json").json()
    assert (told["records"], told["certificates"]) == (len(run("audit", "--json").json()), 3)
    assert told["trust"]["log"][0] < told["records"]
    assert "confirms them" in run("audit", "--verify").out
    run("audit", "--verify", "--csv", code=2)
    run("--cluster", "other", "audit", "--verify", code=4)


TAMPERING = {
    "a record": ("UPDATE record SET who = 'nobody' WHERE seq = 6", "does not follow"),
    "the newest records": (
        "DELETE FROM record WHERE seq > 6",
        "ends at record",
    ),
    "the inventory": ("UPDATE certificate SET status = 'issued' WHERE status = 'revoked'", "without the store's key"),
    "a fingerprint": ("UPDATE certificate SET fingerprint = 'ff'", "without the store's key"),
    "a CA": ("UPDATE authority SET entry = replace(entry, '\"max_ttl\"', '\"max\"')", "without the store's key"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_a_changed_local_log_is_noticed(local: Run, tmp_path: Path, what: str) -> None:
    local("init-ca", "--with", "client/alice,worker")
    local("revoke", "client/alice")
    local("audit", "--verify")
    statement, message = TAMPERING[what]
    with closing(sqlite3.connect(tmp_path / "store" / "store.db")) as connection:
        for trigger in ("record_is_never_changed", "record_is_never_deleted"):
            connection.execute(f"DROP TRIGGER {trigger}")
        assert connection.execute(statement).rowcount
        connection.commit()
    assert message in local("audit", "--verify", code=3).err


def test_a_trust_document_that_was_put_back_is_noticed(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "client/alice")
    local("revoke", "client/alice")
    with closing(sqlite3.connect(tmp_path / "store" / "store.db")) as connection:
        connection.execute("DELETE FROM version WHERE secret = 'daskpki_default_trust' AND number = 2")
        connection.commit()
    assert "without the store's key" in local("audit", "--verify", code=3).err


def test_a_publication_that_a_holder_of_the_stores_key_put_back_is_noticed(local: Run, tmp_path: Path) -> None:
    """Whoever unlocks the store can seal its tables, but does not sign for the CA."""
    local("init-ca", "--with", "client/alice")
    url, unlock = LocalUrl(tmp_path / "store"), Unlocking(key_file=tmp_path / "store.key")

    def rewrite(statement: str) -> None:
        with closing(open_store(url, unlock=unlock)) as store:
            assert isinstance(store, LocalStore)
            with store._database.write() as connection:
                assert connection.execute(statement).rowcount
                TableSeal(connection, store.unlock(), store.id).renew(())

    local("revoke", "client/alice")
    local("audit", "--verify")
    rewrite("UPDATE published SET body = json_set(body, '$.epoch', 1)")
    assert "its last publication differ from the log" in local("audit", "--verify", code=3).err


def test_a_secret_managers_log_that_someone_cut_off_is_noticed(
    server: SecretManagerServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", server.rest_url)
    run = runner(capsys, "--store", "gsm://my-project")
    run("init-ca", "--with", "client/alice")
    run("revoke", "client/alice")
    run("audit", "--verify")
    with closing(open_store(GsmUrl("my-project", None))) as store:
        number, data = store.secrets.latest("daskpki_default_records")
        head = decode_part(data.reveal())
        assert isinstance(head, LogHead)
        link = Link(head.link.seq + 1, number, "forged")
        cut = head._replace(link=link, tail=head.tail[:5])  # without the revocation and its publication
        store.secrets.add("daskpki_default_records", Confidential(encode_part(cut)))
    for home in (None, tmp_path):  # the second is an operator's who has seen nothing: the trust document tells
        if home:
            monkeypatch.setenv("DASKPKI_HOME", str(home))
        caplog.clear()
        assert "all in commits that the CA signed: " in run("audit", "--verify").out
        assert f"version {number + 1} does not count" in caplog.text
