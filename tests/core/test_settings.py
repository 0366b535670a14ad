"""Stores are named by URL; anything else is refused with the forms that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.credentials.dask_config import config_file
from daskpki.errors import UsageError
from daskpki.quoting import shown
from daskpki.settings import GsmUrl, LocalUrl, cluster_name, home, parse_store_url, store_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("local:", LocalUrl(None)),
        ("local:/srv/pki", LocalUrl(Path("/srv/pki"))),
        ("gsm://my-project", GsmUrl("my-project")),
        ("gsm://my-project/europe-west1", GsmUrl("my-project", "europe-west1")),
        ("gsm://example.com:old-project", GsmUrl("example.com:old-project")),
        ("gsm://123456789012", GsmUrl("123456789012")),
    ],
)
def test_a_store_url_survives(text: str, url: LocalUrl | GsmUrl) -> None:
    assert parse_store_url(text) == url
    assert str(url) == text


@given(st.text())
def test_any_text_is_a_store_or_a_usage_error(text: str) -> None:
    for candidate in (text, f"gsm://{text}", f"local:{text}"):
        try:
            parse_store_url(candidate)
        except UsageError as error:
            assert shown(candidate) in str(error)


def test_gsm_names_its_parent_resource() -> None:
    assert GsmUrl("p-rod-1").parent == "projects/p-rod-1"
    assert GsmUrl("p-rod-1", "us-east1").parent == "projects/p-rod-1/locations/us-east1"


def test_options_win_over_the_environment() -> None:
    environ = {"DASKPKI_STORE": "gsm://from-environ", "DASKPKI_CLUSTER": "prod"}
    assert store_url(environ) == GsmUrl("from-environ")
    assert store_url(environ, "local:") == LocalUrl(None)
    assert store_url({}) == LocalUrl(None)
    assert (cluster_name(environ), cluster_name(environ, "dev"), cluster_name({})) == ("prod", "dev", "default")
    with pytest.raises(UsageError, match="cluster 'Prod'"):
        cluster_name({}, "Prod")


def test_each_platform_has_its_place() -> None:
    user = {"HOME": "/home/alice"}
    assert home(user, "linux") == Path("/home/alice/.local/share/daskpki")
    assert home(user | {"XDG_DATA_HOME": "/data"}, "linux") == Path("/data/daskpki")
    assert home(user, "darwin") == Path("/home/alice/Library/Application Support/daskpki")
    assert home(user | {"DASKPKI_HOME": "/srv/x"}, "linux") == Path("/srv/x")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arbitrary uid in a container: no HOME, and no entry in /etc/passwd."""

    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for find in (home, config_file):
        with pytest.raises(UsageError, match="no home directory") as caught:
            find({})
        assert "DASKPKI_HOME" in str(caught.value.hint)
    assert home({"DASKPKI_HOME": "/srv/x"}) == Path("/srv/x")
