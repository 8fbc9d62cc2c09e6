"""Who may do what, as data: one row for each URL and method, one column for each kind of credential.

`credentials.py` describes the callers, `world.py` the objects, and `needs.py` the rules: a second, short statement of
them, independent of the code that enforces them. The rows are in `access_rows.py`, `policy_rows.py`, `rollout_rows.py`
and `console_rows.py`; `tests/trust/test_matrix.py` checks every pair.
"""
