"""The optional task log: a line of figures for each finished task, on the router's own disk.

Sums per minute suffice to judge a rollout. Estimating another policy requires individual tasks with the exact
probability of their assignment: `manage.py backtest --log pointsman` reads them. The log contains no text: see `line`.
"""
