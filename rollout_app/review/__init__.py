"""The review: where tasks went, how well, at what cost, who owns them, and what changed.

models, rollups     sums by hour and by day: updated by a job, exact, can be rebuilt
columns             how sums are added up, and how a row becomes `OutcomeSums`
reading             the sums of a period by route, read from the coarsest rollups that are ready
figures             rates and costs of some sums, as the API returns them
diagnosing          the diagnosis of a workload, or of a rollout, from those sums
workloads           the review of one workload
"""
