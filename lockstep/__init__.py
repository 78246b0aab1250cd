"""Lockstep: a Prefect + DVC + Feast workflow whose promises are executed."""
