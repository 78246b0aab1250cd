"""Timings of Lockstep beside its peers, for people to read: nothing fails because it was slow, only because it lied."""
