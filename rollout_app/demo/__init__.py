"""`make demo`: four rollouts over recorded tasks, with the real server, real routers and the real engine.

stories.py    what moves from where to where, and what to expect
instance.py   the rows that they need: environments, people, catalogue, workloads, versions, keys
traffic.py    one running story: its routers, its replay, its rollout
telling.py    the lines and the table on the terminal
server.py     the server process
"""
