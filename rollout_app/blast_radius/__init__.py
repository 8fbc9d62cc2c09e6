"""What a candidate would move, before it moves anything: which share of which endpoint to which model, and the cost.

knowledge    what the rule that decided says about other conditions
routing      which choices of a policy are possible for the tasks of one route
projection   models and costs including the second stage, as bounds
week         the traffic of the last seven days
rehearsed    the shadow stage and its mirror, by endpoint and rule
radius       the whole blast radius
shadow_stage the report of a shadow stage
answers      the answer of the API
words        sentences
"""
