"""A cluster's secrets that grants are for, and who is granted them."""

from __future__ import annotations

KINDS = ("trust", "records", "cakey_1", "scheduler_scheduler", "worker_worker", "client_alice", "client_bob")
WORKER = "serviceAccount:worker@test-project.iam.gserviceaccount.com"
SCHEDULER = "serviceAccount:scheduler@test-project.iam.gserviceaccount.com"
ALICE = "user:alice@example.com"
