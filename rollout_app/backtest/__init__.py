"""A policy over recorded tasks, before any traffic: what it would have got right, and what it would have cost.

    readers → Task → follow (the policy's own steps) → Tally → figures, intervals, curve → report

Nothing here looks at the database, and nothing is sent anywhere. A task's outcome is what was recorded of the model
that the policy chooses; where nothing was recorded the task is left out and counted, never taken for a failure or
for a free call.
"""
