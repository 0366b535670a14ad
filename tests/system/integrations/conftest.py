"""A cluster's credentials, Secret Manager with a grant for each role, and alice's Security."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dask.config
import pytest

from daskpki.cluster.local_cluster import LocalSecurity, cluster_security
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.identity import Role
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import TrustDocument, parse_trust
from daskpki.secret_names import credential_id, trust_id
from tests.emulator.server import SecretManagerServer
from tests.support.compute_engine import ACCOUNTS
from tests.support.key_search import Canary
from tests.support.material import Cluster, make_cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return make_cluster("lab")


@pytest.fixture(scope="session")
def document(cluster: Cluster) -> TrustDocument:
    return verify_trust(
        parse_trust(cluster.trust), now=datetime.now(UTC), cluster=cluster.name, anchors=[cluster.anchor]
    )


@pytest.fixture
def alice(cluster: Cluster, document: TrustDocument) -> PkiSecurity:
    return client_security(cluster.credentials["client/alice"], document)


@pytest.fixture
def everyone(cluster: Cluster, document: TrustDocument) -> LocalSecurity:
    return cluster_security(cluster.credentials.values(), document)


@pytest.fixture
def keys(cluster: Cluster) -> Canary:
    return Canary({slug: each.key for slug, each in cluster.credentials.items() if each.key is not None})


@pytest.fixture
def directories(cluster: Cluster, tmp_path: Path) -> dict[Role, Path]:
    """A credential directory for each node."""
    return {role: cluster.export(f"{role.value}/{role.value}", tmp_path / role.value) for role in ACCOUNTS}


@pytest.fixture
def secrets(cluster: Cluster) -> Iterator[SecretManagerServer]:
    with SecretManagerServer() as server:
        cluster.seed(server, "projects/test-project")
        for role, account in ACCOUNTS.items():
            for secret in (credential_id(cluster.name, role, role.value), trust_id(cluster.name)):
                server.iam.grant_prefix(
                    "test-project",
                    "roles/secretmanager.secretAccessor",
                    f"serviceAccount:{account}",
                    prefix=secret,
                )
        yield server


@pytest.fixture
def configuration() -> Iterator[None]:
    """Dask's configuration as it was: dask-cloudprovider changes the process's own."""
    before = copy.deepcopy(dask.config.global_config)
    yield
    dask.config.global_config.clear()
    dask.config.global_config.update(before)
