"""What is wrong with a cluster, and the command that mends it: looking (I/O) apart from judging (pure).

    finding.py        severity, subject, reason, remedy; the exit code
    examination.py    which checks run, in which order, and what a failure to look becomes
    gathering.py      looks at the store, and hands what it saw to the judges
    probing.py        looks at a scheduler from outside
    elsewhere.py      looks at the clock on the other side of the store

    key_slots.py      by what a local store opens            certificates.py   the CA's end and every leaf's
    publication.py    trust document, CRLs, log, unfinished operations
    versions.py       the versions of secrets                access.py         who may read them
    clock.py          this machine's clock                   installation.py   Dask's versions and configuration
    logins.py         who is logged in here                  scheduler.py      what a scheduler shows to strangers

Nothing here changes anything.
"""
