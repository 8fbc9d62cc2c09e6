"""The review: what went where, how well, at what cost, whose it is, and what changed. Reads only.

reading      the sums of a time by route, from the outcomes
figures      rates and costs of some sums, as the API gives them
diagnosing   the diagnosis of a workload, or of a rollout, from those sums
workloads    the review of one workload
"""

from rollout_app.review.diagnosing import diagnose_rollout
from rollout_app.review.workloads import review_workload

__all__ = ["diagnose_rollout", "review_workload"]
