"""Run a policy over recorded tasks, before any traffic: what it would have answered correctly, and at what cost.

    readers → Task → follow (the policy's own steps) → Tally → figures, intervals, curve → report

Nothing here reads the database or sends anything anywhere. A task's outcome is the recorded one of the model that the
policy chooses. A task without a recording of that model is left out and counted, never treated as a failure or a free
call.
"""
