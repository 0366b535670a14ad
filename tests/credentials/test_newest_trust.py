"""A client that holds a credential from a store looks there for a newer trust document when it dials."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import daskpki
from daskpki.confidential import Confidential
from daskpki.credentials.newest_trust import NewestTrust
from daskpki.identity import Role
from daskpki.store.local.store import LocalStore
from tests.support.login_material import Founded


def test_a_newer_document_of_the_store_holds_once_a_client_dials(
    store: LocalStore, founded: Founded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASKPKI_KEY_FILE", str(tmp_path / "store.key"))
    monkeypatch.setenv("DASKPKI_HOME", str(tmp_path / "home"))
    enforcement = daskpki.security("alice", store=f"local:{tmp_path / 'store'}").enforcement(Role.CLIENT)
    before = enforcement.trust.epoch
    founded.publish(store.secrets)
    dialling = enforcement.on_dial
    assert dialling is not None

    async def dial() -> None:
        await dialling.begin()
        await dialling.finish()

    asyncio.run(dial())
    assert enforcement.trust.epoch == before + 1
    assert len(list((tmp_path / "home" / "trust").iterdir())) == 1


def test_what_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    kept = NewestTrust(tmp_path, "a-login")
    assert kept.load() is None
    kept.keep(Confidential(b"signed"))
    kept.keep(Confidential(b"signed later"))
    assert kept.load() == Confidential(b"signed later")
    kept.forget()
    kept.forget()
    assert list(tmp_path.iterdir()) == []
