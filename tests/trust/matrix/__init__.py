"""Who may do what, as data: one row for each address and method, one column for each kind of credential.

`credentials.py` describes the callers, `world.py` what they act on, `needs.py` the rules, once more and in a page,
apart from the code that follows them. The rows are in `access_rows.py`, `policy_rows.py`, `rollout_rows.py` and
`console_rows.py`; `tests/trust/test_matrix.py` asks every pair.
"""
