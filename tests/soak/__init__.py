"""`make soak`: some minutes of everything at once, with faults, and after that a look at what is left.

Two processes of the service on one PostgreSQL; users of all kinds; a model server that fails now and then; somebody who
kills, freezes and restarts. A seed makes it the same users with the same faults in the same order, though not to the
millisecond.
"""
