"""How people sign in: by password and second factor, passkey, or provider. django-allauth does it; this sets it up.

hashing         at most two password hashes at once
passwords       the check of a password; a hash of old costs is replaced, with an entry
throttle        what django-axes asks: under which name failures are counted, what somebody locked out sees
adapters        what django-allauth asks of Pointsman: who may sign up, and what the audit log gets
passkeys        WebAuthn: instead of the password, or after it
stored_secrets  those of second factors, encrypted
guard           REQUIRE_SECOND_FACTOR
invited         the invitation that a browser came with
company         the company's identity provider (OpenID Connect)
frames          the console's look
entrance        pages before the session; `own_account`: pages of one's own account; `urls`: their addresses
"""
