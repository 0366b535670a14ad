"""The filter language, on messages alone, and that no text of any kind makes it fail otherwise than by refusing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulator.filters import parse_filter
from tests.emulator.messages import DISABLED, Pb, Secret, SecretVersion
from tests.emulator.status import ApiError


def sample() -> Pb:
    secret = Secret(name="projects/1/secrets/daskpki_c_trust")
    secret.labels.update({"managed-by": "daskpki", "env": "prod", "empty": ""})
    secret.create_time.FromJsonString("2026-06-01T00:00:00Z")
    secret.replication.user_managed.replicas.add(location="us-east1")
    return secret


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("name:daskpki_c_", True),
        ("name:DASKPKI", True),
        ("name:daskpki*trust", True),
        ("name:nosuch", False),
        ("trust", True),
        ("labels.managed-by=daskpki", True),
        ('labels.managed-by="daskpki"', True),
        ("labels.managed-by = daskpki", True),
        ("labels.env:pro", True),
        ("labels.env=pro", False),
        ("labels.env!=prod", False),
        ("labels.nosuch=x", False),
        ("labels:env", True),
        ("labels.env:*", True),
        ("labels.nosuch:*", False),
        ("labels.env=prod AND name:nosuch", False),
        ("labels.env=prod name:trust", True),
        ("labels.env=test OR name:trust", True),
        ("name:nosuch AND labels.env=prod OR name:trust", False),  # OR binds tighter
        ("(name:nosuch AND labels.env=prod) OR name:trust", True),
        ("NOT labels.env=test", True),
        ("-labels.env=prod", False),
        ("create_time>2026-01-01T00:00:00Z", True),
        ("create_time<2026-01-01T00:00:00Z", False),
        ("create_time>=2026-06-01", True),
        ("replication.user_managed.replicas.location:us-east1", True),
        ("expire_time:*", False),
    ],
)
def test_secrets(text: str, matches: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    assert parse_filter(text)(sample()) is matches


@pytest.mark.parametrize(("text", "matches"), [("state:DISABLED", True), ("state=ENABLED", False)])
def test_states(text: str, matches: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    assert parse_filter(text)(SecretVersion(name="n", state=DISABLED)) is matches


@pytest.mark.parametrize("text", ["(", ")", "name:", "AND", "name:a AND", "nosuch=1", "name:a)", "=x"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="Invalid filter"):
        parse_filter(text)


@given(st.text(alphabet='abn012()":=.<>! -*ANDORT\\', max_size=30))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        parse_filter(text)(sample())
    except ApiError as error:
        assert error.status == "INVALID_ARGUMENT"
