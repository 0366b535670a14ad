"""The local store: one SQLite database whose payloads are sealed with a master key, which key slots seal in turn.

    database.py      transactions, durability             key_slots.py    the ways to unlock the master key
    secret_store.py  SecretStore                          record_log.py   RecordLog and Inventory
    store.py         Store, and its creation              table_seal.py   MAC over all tables
    backup.py        backup and restore

A local store has no IAM: everyone who can unlock it can read all of it.
"""
