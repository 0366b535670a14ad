"""The order of the sources, for every combination of settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.credentials.source_selection import CredentialSource, Wanted, choose
from daskpki.errors import UsageError

_SETTINGS = {
    "DASKPKI_HANDOVER": ("/proc/1/fd/9", CredentialSource.HANDOVER),
    "DASKPKI_CREDENTIAL_DIR": ("/run/cred", CredentialSource.DIRECTORY),
    "DASKPKI_SOURCE": ("store", CredentialSource.STORE),
}


@given(st.booleans(), st.sets(st.sampled_from(list(_SETTINGS))))
def test_the_first_that_is_set_decides_and_the_others_are_named(explicit: bool, names: set[str]) -> None:  # noqa: FBT001
    environ = {name: _SETTINGS[name][0] for name in names}
    choice = choose(Wanted(store="gsm://project" if explicit else None), environ)
    expected = [CredentialSource.STORE] if explicit else []
    expected += [source for name, (_, source) in _SETTINGS.items() if name in names]
    assert choice.source is (expected or [CredentialSource.KEYRING])[0]
    assert len(choice.passed_over) == max(0, len(expected) - 1)
    for name in list(names)[explicit:]:
        assert name in " ".join([choice.why, *choice.passed_over])


@pytest.mark.parametrize("empty", ["DASKPKI_HANDOVER", "DASKPKI_CREDENTIAL_DIR", "DASKPKI_SOURCE"])
def test_an_empty_setting_is_no_setting(empty: str) -> None:
    assert choose(Wanted(), {empty: ""}).source is CredentialSource.KEYRING


def test_the_keyring_can_be_asked_for() -> None:
    choice = choose(Wanted(), {"DASKPKI_SOURCE": "keyring"})
    assert (choice.source, choice.why) == (CredentialSource.KEYRING, "DASKPKI_SOURCE is keyring")


def test_a_source_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="DASKPKI_SOURCE=vault is no source"):
        choose(Wanted(), {"DASKPKI_SOURCE": "vault"})
