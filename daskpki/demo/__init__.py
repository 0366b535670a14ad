"""`daskpki demo`: a cluster, a computation and three attacks in a temporary home directory, narrated.

story.py  the steps and their checks, and three attackers
stage.py  the temporary home directory, and the processes that run in it
alice.py  a client that computes, run as a separate process
"""
