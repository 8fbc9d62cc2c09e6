"""How each guardrail is measured: which figures it reads, its estimate, and the evidence for and against.

`sufficient` keeps sums of closed windows, `rates` and `ratios` say what they show, `missing` what is not known, `units`
which tasks of sticky units are compared. "Harm" is evidence against "the candidate is no worse", "safe" against "it is
worse by the margin or more". Logarithms throughout; 0 is no evidence.
"""
