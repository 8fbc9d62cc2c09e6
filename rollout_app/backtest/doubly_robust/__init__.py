"""Estimate what a policy would have done from tasks with a randomly drawn arm: doubly robust, with intervals. Pure.

During a rollout each task's arm is drawn with a known probability. The value of a policy is then the mean of an
outcome model's predictions, corrected by the actual outcomes of the tasks that were served as the policy would have,
each weighted by the inverse of that probability (AIPW: Robins, Rotnitzky & Zhao 1994; Dudík, Langford & Li 2011).
Because the probabilities are exact, a wrong outcome model makes intervals wider but never wrong.

The outcome model is a mean by model, endpoint and task type, size, confidence and priority; a level with few tasks is
shrunk towards the level above. It is fitted without the fold of the task that it predicts (cross-fitting,
Chernozhukov et al. 2018). A unit's tasks stay in one fold, and the variance is computed from sums by unit.

    sums        the tasks as sums by kind of task, and 29 bytes of each in temporary files
    fit         the outcome model, the means, and each unit's share of their errors
    intervals   from means and errors to intervals
    estimate    values and changes of several policies
"""

from rollout_app.backtest.doubly_robust.estimate import Value, ValueChange, change_of, estimates, value_of
from rollout_app.backtest.doubly_robust.intervals import LEAST_UNITS
from rollout_app.backtest.doubly_robust.sums import CLIP, Key, Observation, ObservedSums

__all__ = [
    "CLIP",
    "LEAST_UNITS",
    "Key",
    "Observation",
    "ObservedSums",
    "Value",
    "ValueChange",
    "change_of",
    "estimates",
    "value_of",
]
