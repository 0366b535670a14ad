"""The local store: one SQLite database whose payloads are sealed under a master key, which key slots seal in turn.

    database.py      schema, transactions, durability     key_slots.py    the ways to the master key
    secret_store.py  SecretStore                          record_log.py   RecordLog
    inventory.py     tables that follow from the records  table_seal.py   MAC over all tables
    store.py         Store, and its creation              backup.py       backup and restore

A local store has no IAM: opening it opens all of it.
"""
