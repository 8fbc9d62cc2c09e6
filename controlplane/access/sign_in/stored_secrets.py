"""The secrets of second factors, encrypted in the database, so that reading it is not enough to generate codes."""

import base64
import hashlib

from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth carries no types
    """Encrypts with `SECRET_KEY`. After a change, decrypts with `SECRET_KEY_FALLBACKS`, too."""

    error_messages = DefaultMFAAdapter.error_messages | {
        "incorrect_code": "The code is wrong or has been used. Wait for the next one.",
    }

    def get_totp_label(self, user: AbstractBaseUser) -> str:
        return user.get_username()

    def encrypt(self, text: str) -> str:
        return _ciphers().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Return the text. Raises `ValidationError`, which the form shows, if no known key encrypted it."""
        try:
            return _ciphers().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            raise ValidationError(
                "The code cannot be checked, because the server's SECRET_KEY has changed. Use a passkey, or ask an "
                "admin to remove your second factor; the operator can also set SECRET_KEY_FALLBACKS."
            ) from None


def _ciphers() -> MultiFernet:
    keys: list[str] = [settings.SECRET_KEY, *map(str, settings.SECRET_KEY_FALLBACKS)]
    hashed = (hashlib.sha256(b"pointsman.second_factor " + key.encode()).digest() for key in keys)
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in hashed])
