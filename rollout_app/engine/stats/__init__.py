"""The statistics of a rollout: estimates, e-values, intervals. Standard library only, no state.

An *e-value* is evidence against a hypothesis. If the hypothesis is true, its expectation is at most 1 at any time, so
the probability that it ever reaches 1/alpha is at most alpha, however often one looks (Ville's inequality). All
e-values here are natural logarithms. `docs/explanation/statistics.md` gives the reasons and sources.
"""
