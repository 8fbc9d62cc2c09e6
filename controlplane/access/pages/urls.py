"""URLs of these pages, under /console/."""

from django.urls import path

from controlplane.access.pages import account, invitations, people, teams

urlpatterns = [
    path("account/", account.account, name="account"),
    path("people/", people.people, name="people"),
    path("people/invite/", invitations.invite, name="invite"),
    path("people/invitations/<uuid:pk>/revoke/", invitations.revoke, name="revoke_invitation"),
    path("people/roles/<int:pk>/withdraw/", people.withdraw, name="withdraw_role"),
    path("people/<int:pk>/", people.person_page, name="person"),
    path("people/<int:pk>/<slug:change>/", people.change_person, name="change_person"),
    path("teams/", teams.teams, name="teams"),
    path("teams/<slug:name>/", teams.team_page, name="team"),
]

# For people without an account yet: outside the console's site, with their own names.
open_urlpatterns = [
    path("invitation/", invitations.accept, name="accept_invitation"),
    path("invitation/<str:token>/", invitations.open_link, name="invitation"),
]
