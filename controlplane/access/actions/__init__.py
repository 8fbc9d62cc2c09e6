"""Every write to who may do what. Each in one transaction with its audit entry.

keys    issue_key  revoke_key  rotate_key
roles   grant_role  withdraw_role  create_team  set_team_members  people
"""

from controlplane.access.actions.keys import MAX_OVERLAP, issue_key, key_fields, revoke_key, rotate_key
from controlplane.access.actions.roles import (
    create_team,
    grant_role,
    people,
    set_team_members,
    team_fields,
    withdraw_role,
)

__all__ = [
    "MAX_OVERLAP",
    "create_team",
    "grant_role",
    "issue_key",
    "key_fields",
    "people",
    "revoke_key",
    "rotate_key",
    "set_team_members",
    "team_fields",
    "withdraw_role",
]
