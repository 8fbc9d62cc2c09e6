"""The review: what went where, how well, at what cost, whose it is, and what changed.

models, rollups     sums by hour and by day, kept by a job, exact, rebuildable
columns             how sums are added up, and how a row becomes `OutcomeSums`
reading             the sums of a time by route, from the largest sums that are ready
figures             rates and costs of some sums, as the API gives them
diagnosing          the diagnosis of a workload, or of a rollout, from those sums
workloads           the review of one workload
"""
