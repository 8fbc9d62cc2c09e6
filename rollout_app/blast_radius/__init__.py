"""What a candidate would move before it moves: which share of which endpoint goes to which model, at what cost.

knowledge    what a rule that decided says of other conditions
routing      which choices of a policy are possible for the tasks of one route
projection   models and costs after the second stage, as bounds
shadow       the shadow stage and its mirror, by endpoint and rule
radius       both put together from what is stored
answers      as the API gives it
words        as sentences
"""
