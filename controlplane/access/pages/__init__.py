"""Pages for people: one's own account, other people's roles, invitations, teams. `urls` has the URLs."""
