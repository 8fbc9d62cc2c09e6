"""The diagnosis: what a policy does well or badly, in words, based on intervals. Pure.

figures    the sums that everything is computed from
compare    fair comparisons: two arms in the same minutes, or two periods at the same mix of traffic
models     which model is strongest, and the cost of using only one model
words      the diagnosis itself
"""

from rollout_app.engine.diagnosis.compare import (
    Change,
    PeriodComparison,
    compare_arms,
    compare_periods,
)
from rollout_app.engine.diagnosis.figures import OutcomeSums
from rollout_app.engine.diagnosis.models import ModelRecord, RouteCost, cost_if_always
from rollout_app.engine.diagnosis.words import Diagnosis, PolicyFigures, diagnose

__all__ = [
    "Change",
    "Diagnosis",
    "ModelRecord",
    "OutcomeSums",
    "PeriodComparison",
    "PolicyFigures",
    "RouteCost",
    "compare_arms",
    "compare_periods",
    "cost_if_always",
    "diagnose",
]
