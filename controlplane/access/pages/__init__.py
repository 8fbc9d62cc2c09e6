"""Pages of people: one's own account, the others' roles, invitations, teams. `urls` has their addresses."""
