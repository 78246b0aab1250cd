"""Lockstep: a Prefect + DVC + Feast workflow whose promises are executed."""

import os

# OpenMP's threads spin while they wait. Beside any other busy process that made a fit of 4 s take 87 s (2 cores). It
# must be said before scikit-learn loads OpenMP, and changes no bit of a result.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
