"""`make demo`: four rollouts over recorded tasks, through the real server, real routers and the real engine.

stories.py    what is moved from where to where, and what to expect
instance.py   the instance that they need: environments, people, catalogue, workloads, versions, keys
traffic.py    one story under way: its routers, its replay, its rollout
telling.py    the lines and the table that a person sees
server.py     the server process beside the demo's own
"""
