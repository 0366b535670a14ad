"""The store on Google Secret Manager, through the official client.

    client.py     the only importer of Google's libraries       api.py         requests with their retries
    secrets.py    SecretStore; replication and keys             errors.py      what a refusal means (pure)
    log.py        RecordLog, over daskpki.store.append_chain    log_format.py  the log's payloads (pure)
    log_view.py   records and inventory of a log                iam.py         IAM policies of secrets
    store.py      Store

Roles that an operator needs: secretmanager.admin on the cluster's secrets, by an IAM condition on their prefix.

Nothing is imported here, since the entrypoint imports the pure modules of this package and has no time for the others.
"""
