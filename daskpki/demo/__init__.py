"""`daskpki demo`: a cluster, a computation and three attacks in a temporary home directory, narrated.

story.py      the steps, their order and their checks
stage.py      the temporary home directory, and the processes that run in it
alice.py      a client that computes, run as a separate process
strangers.py  three attackers, and how the cluster refuses them
"""
