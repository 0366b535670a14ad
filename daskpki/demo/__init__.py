"""`daskpki demo`: shows daskpki on this machine, in a temporary home that is then removed.

story.py      the steps, in order, and what each has to prove
stage.py      the temporary home, and the processes that run in it
alice.py      a person's program: a client that computes, in its own process
strangers.py  three connections that the cluster has to refuse
"""
