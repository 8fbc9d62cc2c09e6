"""How people sign in: by password and second factor, passkey, or provider. Configures django-allauth.

hashing         at most two password hashes at once
passwords       checks a password; a hash with outdated costs is replaced, with an entry
throttle        settings of django-axes: the name under which failures are counted, the lockout page
adapters        hooks of django-allauth: who may sign up, and what is recorded in the audit log
passkeys        WebAuthn, instead of the password or after it
stored_secrets  encrypts the secrets of second factors
guard           REQUIRE_SECOND_FACTOR
invited         the invitation that a browser opened
company         the company's identity provider (OpenID Connect)
frames          the console's layout for these pages
entrance        pages for visitors; `own_account`: pages for one's own account; `urls`: their URLs
own_password    the form for a new password
"""
