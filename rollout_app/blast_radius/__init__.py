"""What a candidate would move before it moves: which share of which endpoint goes to which model, at what cost.

knowledge    what a rule that decided says of other conditions
routing      which choices of a policy are possible for the tasks of one route
projection   models and costs after the second stage, as bounds
week         the traffic of the last seven days
rehearsed    the shadow stage and its mirror, by endpoint and rule
radius       all of it put together
shadow_stage the report of a shadow stage
answers      as the API gives it
words        as sentences
"""
