"""Stores of payloads and records: the ports, the local store, Secret Manager, and the suites that all stores pass."""
