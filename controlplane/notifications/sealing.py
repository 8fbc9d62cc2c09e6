"""Secrets that must be used again, so that a hash will not do: sealed by the instance's SECRET_KEY.

Fernet (AES-128-CBC and HMAC-SHA256) under a key that HKDF (RFC 5869) derives from SECRET_KEY. Somebody who has the
database alone, or a dump of it, has none of them; somebody who has SECRET_KEY, too, has all. After SECRET_KEY was
changed, those sealed before are opened by SECRET_KEY_FALLBACKS, and without it must be made anew.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from controlplane.core.errors import Conflict


class Unreadable(Conflict):
    code, title = "secret_unreadable", "A secret cannot be read any more"


def seal(text: str) -> str:
    return _box().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """Raises `Unreadable`."""
    try:
        return _box().decrypt(sealed.encode()).decode()
    except (InvalidToken, ValueError):
        raise Unreadable(
            "A secret was sealed under another SECRET_KEY and cannot be read: set SECRET_KEY_FALLBACKS, or rotate it."
        ) from None


def _box() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_derived(key)) for key in keys])


def _derived(key: str | bytes) -> bytes:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"pointsman.notifications.v1").derive(
        key.encode() if isinstance(key, str) else key
    )
    return base64.urlsafe_b64encode(derived)
