"""The statistics of a rollout: estimates, e-values, intervals. Standard library only, no state.

An *e-value* is evidence against a hypothesis: under it, its expectation is at most 1 at every moment, so the
chance that it ever reaches 1/alpha is at most alpha, however often one looks (Ville's inequality). All
e-values are natural logarithms here. `docs/explanation/statistics.md` explains why, with sources.
"""
