"""`daskpki demo`: the whole story on this machine, told while it happens, in a home of its own that is then removed.

story.py      what happens, in which order, and what has to hold
stage.py      the temporary home, and the processes that run in it
alice.py      a person's program: a client that computes, in a process of its own
strangers.py  three who have no business in the cluster, and how they are turned away
"""
