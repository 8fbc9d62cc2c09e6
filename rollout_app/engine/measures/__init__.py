"""The measures of the guardrails: the figures they read, their estimates, and the evidence for and against harm.

`sufficient` keeps the sums of closed windows, `rates` and `ratios` turn them into estimates and evidence, `shares`
compares what is missing in each arm, and `units` selects which tasks of sticky units are compared. "Harm" is evidence
against "the candidate is no worse", "safe" is evidence against "it is worse by the margin or more". All evidence is in
logarithms; 0 means no evidence.
"""
