"""Seal secrets that must be used again, and so cannot be hashed, with the instance's SECRET_KEY.

Fernet (AES-128-CBC and HMAC-SHA256), with a key that HKDF (RFC 5869) derives from SECRET_KEY. The database or a dump of
it does not reveal the secrets; with SECRET_KEY as well, it reveals all. After a change of SECRET_KEY, older secrets can
be unsealed through SECRET_KEY_FALLBACKS; without it they must be created again.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from controlplane.core.errors import Conflict

UNREADABLE = (
    "A secret was sealed under another SECRET_KEY and cannot be read: set SECRET_KEY_FALLBACKS, rotate the webhook's "
    "secret, or enter the Slack address again."
)


class Unreadable(Conflict):
    code, title = "secret_unreadable", "A secret can no longer be read"


def seal(text: str) -> str:
    return _box().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """Return the text. Raises `Unreadable`."""
    try:
        return _box().decrypt(sealed.encode()).decode()
    except (InvalidToken, ValueError):
        raise Unreadable(UNREADABLE) from None


def _box() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_derived(key)) for key in keys])


def _derived(key: str | bytes) -> bytes:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"pointsman.notifications.v1").derive(
        key.encode() if isinstance(key, str) else key
    )
    return base64.urlsafe_b64encode(derived)
