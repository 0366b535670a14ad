"""The local store: one SQLite database whose payloads are sealed under a master key that lies in key slots.

`schema.py` is the format, `database.py` transactions and durability, `slots.py` and `unlocking.py` the master key,
`secret_store.py` and `record_log.py` the two ports. A local store has no IAM: opening it opens all of it.
"""
