"""The addresses below /console/ that django-allauth knows by these names."""

from django.urls import URLPattern, path, reverse_lazy
from django.views.generic import RedirectView

from controlplane.access.sign_in import company, entrance, own_account, passkeys

TO_LOGIN = RedirectView.as_view(url=reverse_lazy("account_login"))
TO_ACCOUNT = RedirectView.as_view(url=reverse_lazy("console:account"))

urlpatterns: list[URLPattern] = [
    path("login/", entrance.SignInView.as_view(), name="account_login"),
    path("login/second-factor/", entrance.SecondFactorView.as_view(), name="mfa_authenticate"),
    path("login/passkey/", passkeys.LoginPasskeyView.as_view(), name="mfa_login_webauthn"),
    path("login/with/<slug:provider_id>/", company.start, name="openid_connect_login"),
    path("login/with/<slug:provider_id>/callback/", company.come_back, name="openid_connect_callback"),
    path("login/cancelled/", TO_LOGIN, name="socialaccount_login_cancelled"),
    path("login/error/", TO_LOGIN, name="socialaccount_login_error"),
    path("login/signup/", TO_LOGIN, name="socialaccount_signup"),
    path("account/connect/", own_account.connect, name="connect_company"),
    path("account/disconnect/", own_account.DisconnectView.as_view(), name="disconnect_company"),
    path("account/connections/", TO_ACCOUNT, name="socialaccount_connections"),
    path("logout/", entrance.SignOutView.as_view(), name="account_logout"),
    path("account/inactive/", entrance.ClosedAccountView.as_view(), name="account_inactive"),
    path("account/password/", own_account.ChangePasswordView.as_view(), name="account_change_password"),
    path("account/password/set/", TO_ACCOUNT, name="account_set_password"),  # for people without a password
    path("password_change/", RedirectView.as_view(url=reverse_lazy("account_change_password"))),
    path("account/confirm/", own_account.ConfirmPasswordView.as_view(), name="account_reauthenticate"),
    path("account/confirm-code/", own_account.ConfirmCodeView.as_view(), name="mfa_reauthenticate"),
    path(
        "account/confirm-passkey/", passkeys.ConfirmPasskeyView.as_view(), name="mfa_reauthenticate_webauthn"
    ),
    path("account/passkeys/", TO_ACCOUNT, name="mfa_list_webauthn"),
    path("account/passkeys/add/", passkeys.AddPasskeyView.as_view(), name="mfa_add_webauthn"),
    path(
        "account/passkeys/<int:pk>/remove/", passkeys.RemovePasskeyView.as_view(), name="mfa_remove_webauthn"
    ),
    path("account/totp/on/", own_account.TurnOnTotpView.as_view(), name="mfa_activate_totp"),
    path("account/totp/off/", own_account.TurnOffTotpView.as_view(), name="mfa_deactivate_totp"),
    path("account/recovery-codes/", own_account.RecoveryCodesView.as_view(), name="mfa_view_recovery_codes"),
    path(
        "account/recovery-codes/new/",
        own_account.NewRecoveryCodesView.as_view(),
        name="mfa_generate_recovery_codes",
    ),
    path("account/second-factor/", TO_ACCOUNT, name="mfa_index"),
]
