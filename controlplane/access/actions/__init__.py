"""Every write to accounts, keys, roles, teams and invitations, each in one transaction with its audit entry.

accounts     create_person  change_password  account_change  take_stock
keys         issue_key  revoke_key  rotate_key
roles        grant_role  withdraw_role  create_team  set_team_members  people
second_person  request_role
people       deactivate_person  activate_person  end_sessions  remove_second_factor  withdraw_superuser
invitations  invite  revoke_invitation  accept_with_password  accept_as
"""

from controlplane.access.actions.accounts import (
    account_change,
    change_password,
    create_person,
    person_fields,
    take_stock,
)
from controlplane.access.actions.invitations import (
    accept_as,
    accept_with_password,
    invitation_fields,
    invite,
    refuse_bad_username,
    refuse_ended,
    revoke_invitation,
    token_hash,
)
from controlplane.access.actions.keys import issue_key, key_fields, revoke_key, rotate_key
from controlplane.access.actions.people import (
    activate_person,
    deactivate_person,
    end_sessions,
    remove_second_factor,
    withdraw_superuser,
)
from controlplane.access.actions.roles import (
    create_team,
    grant_role,
    people,
    set_team_members,
    team_fields,
    withdraw_role,
)
from controlplane.access.actions.second_person import request_role

__all__ = [
    "account_change",
    "change_password",
    "create_person",
    "request_role",
    "accept_as",
    "accept_with_password",
    "activate_person",
    "create_team",
    "deactivate_person",
    "end_sessions",
    "grant_role",
    "invitation_fields",
    "invite",
    "issue_key",
    "key_fields",
    "people",
    "person_fields",
    "refuse_bad_username",
    "refuse_ended",
    "remove_second_factor",
    "revoke_invitation",
    "revoke_key",
    "rotate_key",
    "set_team_members",
    "take_stock",
    "team_fields",
    "token_hash",
    "withdraw_role",
    "withdraw_superuser",
]
