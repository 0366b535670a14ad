"""Commands killed, and failed, at every call that changes something; what they leave is judged by what comes next.

`tests/support/crash_cases.py` says what is done, `disk.py` and `cloud.py` break it in a local store and on Secret
Manager, `judge.py` looks at what is left. `scripts/crash-sweep` runs every point there is; the ordinary tests run a
sample of them.
"""
