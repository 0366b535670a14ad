"""Where payloads and records are kept: the ports, the local store, Secret Manager, and the suites they all pass."""
