"""Deployments of each kind, as settings."""

from __future__ import annotations

from daskpki.deploy.settings import Deployment, check_deployment
from daskpki.settings import parse_store_url, require_gsm

STORE = "gsm://project-one"
IMAGE = "europe-west1-docker.pkg.dev/project-one/dask/dask:2026.8.0"
NODE = {"tags": ("dask-server",), "clients_from": ("203.0.113.0/24",)}
CLUSTER = {"workers": 20, "scheduler_machine_type": "e2-standard-4", "clients_from": ("203.0.113.0/24", "10.1.0.0/16")}
ISOLATED = {
    "workers": 12,
    "isolate_workers": True,
    "private": True,
    "subnet": "dask",
    "no_logging": True,
    "no_monitoring": True,
}
MOUNTING = {"workers": 2, "secrets": ("db-password=fd", "token@3=/run/secrets/token")}
HOST = "projects/net-host/global/networks/shared"
SHARED = {
    "workers": 2, "network": HOST, "subnet": "projects/net-host/regions/europe-west1/subnetworks/dask",
    "scheduler_account": "dask-s@project-one.iam.gserviceaccount.com",
    "worker_account": "dask-w@project-one.iam.gserviceaccount.com",
}  # fmt: skip


def deployment(**settings: object) -> Deployment:
    """A deployment with the blog post's machine, unless the settings say otherwise."""
    chosen = {"machine_type": "e2-highcpu-16", "threads_per_worker": 1, "memory_per_worker": "1", **settings}
    return check_deployment(
        Deployment(
            store=require_gsm(parse_store_url(STORE)),
            cluster="lab",
            zone="europe-west1-b",
            image=IMAGE,
            **chosen,  # type: ignore[arg-type] # fields by name
        )
    )
