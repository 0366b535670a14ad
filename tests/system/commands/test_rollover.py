"""`daskpki rotate-ca` on both stores and transports."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.rollover import Successor
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.opening import open_store
from daskpki.store.port import Store
from tests.support.fragile import AFTER, FragileStore, Fuse, Killed
from tests.support.running import Run


def opened(root: Path) -> closing[Store]:
    """The store that `local` works on."""
    return closing(open_store(LocalUrl(root / "store"), unlock=Unlocking(key_file=root / "store.key")))


def test_a_rollover_step_by_step(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "scheduler,worker,client/alice")
    run("export", "worker", "--out", str(tmp_path / "before"))
    started = run("rotate-ca", "start", "--json").json()
    assert [(entry["generation"], entry["state"]) for entry in started["authorities"]] == [(1, "active"), (2, "next")]
    assert "rotate-ca promote" in started["next"]
    run("verify", str(tmp_path / "before" / "cert.pem"))
    promoted = run("rotate-ca", "promote", "--json").json()
    assert promoted["reissued"] == 3
    assert promoted["issuing"] == 2
    assert run("rotate-ca", "promote", "--json").json()["reissued"] == 0
    run("verify", str(tmp_path / "before" / "cert.pem"))
    run("export", "worker", "--out", str(tmp_path / "during"))
    assert "dropped CA 1" in run("rotate-ca", "finish").out
    assert "nothing to finish" in run("rotate-ca", "finish").out
    run("verify", str(tmp_path / "before" / "cert.pem"), code=3)
    run("verify", str(tmp_path / "during" / "cert.pem"))
    assert (tmp_path / "during" / "ca.pem").read_text().count("BEGIN CERTIFICATE") == 2
    final = run("rotate-ca", "status", "--json").json()
    assert (final["phase"], final["published"], final["next"]) == ("none", True, None)


def test_a_machine_with_either_pin_starts_until_finish_and_then_with_the_new_one_alone(
    local: Run, tmp_path: Path
) -> None:
    """As the page says: a pin is changed after `start`, and before `finish` for what may start again after that."""
    pins: list[str] = []

    def starts() -> list[int]:
        """How a machine's start ends, by its pin."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DASKPKI_KEY_FILE": str(tmp_path / "store.key")}
        boot = [sys.executable, "-m", "daskpki.boot", "exec", "worker", f"--store=local:{tmp_path / 'store'}"]
        commands = [[*boot, f"--ca-sha256={pin}", "--", "true"] for pin in pins]
        return [subprocess.run(command, env=environ, check=False).returncode for command in commands]

    pins.append(local("init-ca", "--with", "worker", "--json").json()["fingerprint"])
    started = local("rotate-ca", "start").out
    pins.append(started.split("SHA-256")[1].split()[0])
    assert starts() == [0, 0]
    local("rotate-ca", "promote")
    assert starts() == [0, 0]
    local("rotate-ca", "finish")
    assert starts() == [3, 0]


def test_aborting_before_and_after_promote(run: Run) -> None:
    run("init-ca", "--with", "worker")
    run("rotate-ca", "start")
    assert run("rotate-ca", "abort", "--json").json()["phase"] == "none"
    assert "nothing to abort" in run("rotate-ca", "abort").out
    run("rotate-ca", "start")
    run("rotate-ca", "promote")
    back = run("rotate-ca", "abort", "--json").json()
    assert (back["issuing"], back["reissued"], back["phase"]) == (1, 1, "retiring")
    assert run("rotate-ca", "abort", "--json").json()["issuing"] == 1
    assert "dropped CA 3" in run("rotate-ca", "finish").out
    assert run("show", "worker", "--json").json()["issuer"] == 1


def test_an_emergency_says_how_long_it_took(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "scheduler,worker,client/alice")
    local("export", "worker", "--out", str(tmp_path / "before"))
    done = local("rotate-ca", "--emergency", "--json").json()
    assert 0 < done["cutAfterSeconds"] <= done["seconds"] < 30
    assert done["reissued"] == 3
    assert [entry["generation"] for entry in done["authorities"]] == [2]
    local("verify", str(tmp_path / "before" / "cert.pem"), code=3)


def test_an_emergency_that_only_finishes_another_says_so(local: Run) -> None:
    """The key of the second CA may be stolen too before the first emergency has reissued all."""
    local("init-ca", "--with", "worker")
    point = "daskpki.cli.rotate_ca._reissue"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point, _cut_off)
        local("rotate-ca", "--emergency", "--yes", code=130)
    again = local("rotate-ca", "--emergency", "--yes")
    assert "this finished the emergency that made CA 2; if the key of that CA was stolen as well" in again.err
    assert "finished the emergency" not in local("rotate-ca", "--emergency", "--yes").err
    assert local("rotate-ca", "status", "--json").json()["issuing"] == 3


@pytest.mark.parametrize("change", [1, 3, 5])
def test_an_emergency_without_the_old_key_is_finished_by_the_command_that_began_it(
    local: Run, tmp_path: Path, change: int
) -> None:
    local("init-ca", "--with", "worker")
    with opened(tmp_path) as store:
        store.secrets.delete(secret_names.ca_key_id("default", 1))
        rollover = CertificateAuthority(FragileStore(store, Fuse(change, AFTER))).rollover()
        with pytest.raises(Killed):
            rollover.emergency(Successor(), old_keys=False)
    assert "--old-key-lost" in local("issue", "worker", code=3 if change > 1 else None).err
    done = local("rotate-ca", "--emergency", "--old-key-lost", "--yes", "--json").json()
    assert (done["phase"], done["published"], done["toReissue"]) == ("none", True, [])
    local("issue", "worker", "--name", "another")


def test_a_pin_of_a_dropped_ca_hides_no_trust_document(run: Run) -> None:
    """What was published without the newest document, no running node would follow."""
    run("init-ca", "--with", "worker")
    pin = run("rotate-ca", "status", "--json").json()["authorities"][0]["fingerprint"]
    run("renew", "worker", "--ca-sha256", pin)
    run("rotate-ca", "--emergency", "--yes", "--ca-sha256", pin)
    before = run("crl", "--json").out
    for command in (["renew", "--due"], ["revoke", "worker", "--yes"], ["rotate-ca", "--emergency", "--yes"]):
        refused = run(*command, "--ca-sha256", pin, code=2).err
        assert refused.startswith("error: the pinned CA was dropped")
        assert "versions destroy" not in refused, "no advice to destroy the genuine document"
    assert run("crl", "--json").out == before
    now = run("rotate-ca", "status", "--json").json()["authorities"][0]
    assert now["generation"] == 2
    run("revoke", "worker", "--yes", "--ca-sha256", now["fingerprint"])


def _cut_off(*_arguments: object, **_options: object) -> int:
    raise KeyboardInterrupt


def test_steps_are_refused_with_the_way_out(local: Run) -> None:
    assert "daskpki init-ca" in local("rotate-ca", "status", code=4).err
    local("init-ca", "--with", "worker")
    assert "start, status, promote" in local("rotate-ca", code=2).err
    assert "rotate-ca start" in local("rotate-ca", "promote", code=1).err
    local("rotate-ca", "start")
    assert "promote, or abort" in local("rotate-ca", "finish", code=1).err
    assert "Ed25519" in local("rotate-ca", "start", "--key-type", "ed25519", code=3).err
    assert "--offline-root FILE" in local("rotate-ca", "start", "--root-passphrase-file", "/x", code=2).err


@pytest.mark.parametrize(
    "given", ["--emergency", "--old-key-lost", "--key-type=p384", "--offline-root=root.key", "--no-push", "--yes"]
)
def test_options_before_a_step_are_refused_since_it_would_not_use_them(local: Run, given: str) -> None:
    local("init-ca", "--with", "worker")
    refused = local("rotate-ca", given, "start", code=2).err
    assert "options before start are not used" in refused
    assert "--emergency takes no step" in refused
    assert local("rotate-ca", "status", "--json").json()["phase"] == "none"


def test_each_step_says_what_it_did_and_what_comes_next(local: Run) -> None:
    local("init-ca", "--with", "scheduler,worker")
    assert "begun before" not in local("rotate-ca", "start").out
    again = local("rotate-ca", "start", "--key-type", "p384").out
    assert "CA 2 is trusted in addition to CA 1" in again
    assert "with the options given then; daskpki rotate-ca abort drops it" in again
    assert local("rotate-ca", "abort").out.splitlines() == [
        "dropped CA 2: nothing it issued stays trusted",
        "CA 1 issues; 0 certificates reissued",
    ]
    assert "warning" not in local("rotate-ca", "promote", code=1).err
    local("rotate-ca", "start")
    promoted = local("rotate-ca", "promote").err
    assert "warning: the trust document is" in promoted
    assert "people ran daskpki login" in promoted
    assert "warning" not in local("rotate-ca", "promote").err, "they trust it since it was started"


def test_promote_warns_as_long_as_a_node_may_not_have_looked(local: Run, tmp_path: Path) -> None:
    """The clock stands still, 70 seconds after the trust document was signed."""
    local("init-ca", "--with", "worker")
    local("rotate-ca", "start")
    with opened(tmp_path) as store:
        start = CertificateAuthority(store).trust().issued_at
    moment = datetime.fromtimestamp(start + 70, UTC).strftime("%Y-%m-%d %H:%M:%S")
    command = [sys.executable, "-m", "daskpki", f"--store=local:{tmp_path}/store", f"--key-file={tmp_path}/store.key"]
    done = subprocess.run(
        ["faketime", "-f", moment, *command, "rotate-ca", "promote"],
        env=os.environ | {"TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "warning: the trust document is 70 s old" in done.stderr


def test_aborting_names_the_leaf_that_the_old_ca_could_not_issue(local: Run) -> None:
    local("init-ca", "--with", "worker")
    local("rotate-ca", "start", "--permit-dns", "lab.example.org")
    local("rotate-ca", "promote")
    local("issue", "scheduler", "--dns", "s.lab.example.org")
    before = local("rotate-ca", "status", "--json").json()
    assert "daskpki revoke scheduler/scheduler" in local("rotate-ca", "abort", code=3).err
    assert local("rotate-ca", "status", "--json").json() == before
    local("revoke", "scheduler")
    assert "CA 1 issues; 1 certificate reissued" in local("rotate-ca", "abort").out


def test_a_leaf_of_a_dropped_ca_is_an_error_until_it_is_renewed(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    with opened(tmp_path) as store:
        rollover = CertificateAuthority(store).rollover()
        rollover.start(Successor())
        rollover.promote()  # and is killed before anything is issued anew
    assert "rotate-ca promote issues them again" in local("rotate-ca", "finish", code=3).err
    local("rotate-ca", "finish", "--force")
    assert "next: daskpki renew --due" in local("rotate-ca", "status").err
    assert "comes from CA 1, which was dropped, so it is not trusted" in local("doctor", "--quiet", code=3).out
    assert local("renew", "--due", "--json").json()[0]["issuer"] == 2
    assert local("rotate-ca", "status").err == ""
    local("doctor")


def test_a_lost_key_is_named_with_the_way_out(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    with opened(tmp_path) as store:
        store.secrets.delete("daskpki_default_cakey_1")
    for command in (("issue", "scheduler"), ("rotate-ca", "start"), ("rotate-ca", "--emergency")):
        refused = local(*command, code=4).err
        assert "the key of CA 1 is not where it was kept" in refused
        assert "daskpki rotate-ca --emergency --old-key-lost" in refused
    done = local("rotate-ca", "--emergency", "--old-key-lost")
    assert "no running node follows" in done.err
    assert "follow within" not in done.err
    assert local("show", "worker", "--json").json()["issuer"] == 2


def test_what_was_cut_off_before_it_was_published_is_named(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    with opened(tmp_path) as store, pytest.raises(Killed):
        CertificateAuthority(FragileStore(store, Fuse(4, AFTER))).rollover().start(Successor())
    told = local("rotate-ca", "status")
    assert "does not show this yet" in told.out
    assert "next: daskpki rotate-ca start, to publish" in told.err
    local("rotate-ca", "start")
    assert "rotate-ca promote" in local("rotate-ca", "status").err
