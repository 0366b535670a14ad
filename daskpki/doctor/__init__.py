"""`daskpki doctor`: finds problems of a cluster and suggests the commands that fix them. Nothing here changes anything.

run.py        the order of the checks; a check that cannot run becomes a finding
checks.py     findings, and the pure rules that make them
store.py      reads a cluster in its store
scheduler.py  connects to a scheduler from outside
"""
