"""The addresses of these pages, under /console/."""

from django.urls import path

from controlplane.access.pages import account

urlpatterns = [
    path("account/", account.account, name="account"),
]
