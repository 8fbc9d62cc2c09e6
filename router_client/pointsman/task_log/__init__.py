"""The task log: a line of figures for each finished task, on the router's own disk, when its owner asks for one.

Minute sums judge a rollout. What another policy would have done takes the tasks one by one, with the exact probability
by which each was assigned: `manage.py backtest --log pointsman` reads them. No text enters: see `line`.
"""
