"""The store on Google Secret Manager, through the official client.

    client.py     the only importer of Google's libraries       api.py        requests with their retries
    endpoint.py   address and transport (pure)                  refusals.py   what a refusal means (pure)
    patience.py   when to try again                             placement.py  replication and keys (pure)
    secrets.py    SecretStore                                   log.py        RecordLog, over daskpki.store.append_chain
    packing.py    the log's payloads (pure)                     state.py      what the log's head carries (pure)
    inventory.py  the inventory, with segments read late        replay.py     all records, segments and tail
    iam.py        IAM policies of secrets                       store.py      Store

Roles that an operator needs: secretmanager.admin on the cluster's secrets, by an IAM condition on their prefix.

Nothing is imported here, since the boot shim takes the pure modules from this package and has no time for the others.
"""
