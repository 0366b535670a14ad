"""The real gcloud CLI reads what daskpki wrote, and daskpki reads what gcloud wrote."""

from __future__ import annotations

import json
import lzma
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import NotOursError
from daskpki.store.gsm.store import GsmStore
from tests.support.drafts import STAMP, random_leaf
from tests.support.gsm_places import GsmPlace, open_place

pytestmark = pytest.mark.needs_gcloud
SECRET = "daskpki_c_secret_s"


@pytest.fixture
def place() -> Iterator[GsmPlace]:
    with open_place("rest", None) as place:
        yield place


@pytest.fixture
def store(place: GsmPlace) -> Iterator[GsmStore]:
    with closing(place.factory()) as store:
        yield store


def download(place: GsmPlace, secret: str, version: str, file: Path) -> bytes:
    """To a file, since on stdout gcloud takes payloads for text."""
    gcloud(place, "versions", "access", version, f"--secret={secret}", f"--out-file={file}")
    return file.read_bytes()


def gcloud(place: GsmPlace, *arguments: str, stdin: bytes = b"") -> bytes:
    command = ["gcloud", "--project=test-project", "--quiet", "secrets", *arguments]
    environ = os.environ | dict(place.server.gcloud_environment)
    return subprocess.run(command, env=environ, input=stdin, check=True, capture_output=True, timeout=60).stdout


def test_gcloud_reads_payloads_and_the_log(place: GsmPlace, store: GsmStore, tmp_path: Path) -> None:
    store.secrets.create(SECRET, labels=secret_names.labels("c", "secret", "s"))
    store.secrets.add(SECRET, Confidential(b"\x00raw\xff"))
    assert download(place, SECRET, "1", tmp_path / "payload") == b"\x00raw\xff"
    draft = random_leaf(random.Random(1)).reserved()
    store.log("c").commit(lambda _: [draft], STAMP)
    text = lzma.decompress(download(place, secret_names.records_id("c"), "latest", tmp_path / "log.xz"))
    header, stamp, event, signed = (json.loads(line) for line in text.splitlines())
    assert (header["format"], header["cluster"]) == (1, "c")
    assert (stamp, event, signed) == (list(STAMP), ["reserved", draft.body], {"signatures": []})


def test_daskpki_reads_what_gcloud_wrote_and_touches_only_its_own(place: GsmPlace, store: GsmStore) -> None:
    labels = ",".join(f"{key}={value}" for key, value in secret_names.labels("c", "secret", "s").items())
    gcloud(place, "create", SECRET, f"--labels={labels}", "--data-file=-", stdin=b"from gcloud")
    assert store.secrets.latest(SECRET).data.reveal() == b"from gcloud"
    assert store.secrets.add(SECRET, Confidential("from daskpki")) == 2
    place.foreign("other")
    with pytest.raises(NotOursError):
        store.secrets.add("other", Confidential("x"))
