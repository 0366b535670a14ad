"""A Google Cloud on loopback, and the real `gcloud` pointed at it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from daskpki.deploy.settings import Deployment, check_deployment
from daskpki.settings import parse_gsm
from tests.emulator import SecretManagerServer
from tests.support.capture_server import GoogleCloud

# An image costs a Debian and a build of minutes, and .ci/apt-packages-long.txt: a long run makes it.
collect_ignore = [] if os.environ.get("DASKPKI_NIGHTLY") else ["test_image.py"]

STORE = "gsm://project-one"
IMAGE = "europe-west1-docker.pkg.dev/project-one/dask/dask:2026.8.0"


class Clouds(NamedTuple):
    """The capture server, Secret Manager, and the environment for `gcloud` and `daskpki`."""

    google: GoogleCloud
    secrets: SecretManagerServer
    environ: Mapping[str, str]


@pytest.fixture
def clouds(tmp_path: Path) -> Iterator[Clouds]:
    with GoogleCloud() as google, SecretManagerServer() as secrets:
        own = {
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_CORE_PROJECT": "project-one",
            "DASKPKI_SECRET_MANAGER_ENDPOINT": f"grpc://{secrets.grpc_target}",
        }
        yield Clouds(google, secrets, {**os.environ, **secrets.gcloud_environment, **google.environment, **own})


def deployment(**settings: object) -> Deployment:
    """A deployment with the blog post's machine, unless the settings say otherwise."""
    chosen = {"machine_type": "e2-highcpu-16", "threads_per_worker": 1, "memory_per_worker": "1", **settings}
    return check_deployment(
        Deployment(store=parse_gsm(STORE), cluster="lab", zone="europe-west1-b", image=IMAGE, **chosen)  # type: ignore[arg-type] # fields by name
    )
