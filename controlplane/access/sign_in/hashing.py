"""Password hashes, limited to two at a time: each takes 100 MB and, for a moment, every processor.

The limit is per process. Requests waiting for it have their own threads (`controlplane.server.bridge`), so that many
sign-ins do not delay the API.
"""

import threading

from django.contrib.auth.hashers import Argon2PasswordHasher

AT_ONCE = 2
_free = threading.BoundedSemaphore(AT_ONCE)


class TwoAtOnceArgon2Hasher(Argon2PasswordHasher):
    """Argon2id with Django's costs. Its hashes are Django's, so a running instance can switch between the two."""

    def encode(self, password: str, salt: str) -> str:
        with _free:
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        with _free:
            return super().verify(password, encoded)

    def must_update(self, encoded: str) -> bool:
        """Return False: Django would save a new hash without an entry, and `audit verify` would report it as changed.

        `controlplane.access.sign_in.passwords` updates hashes, with an entry.
        """
        return False


def is_outdated(encoded: str) -> bool:
    """Return whether a hash was made with costs other than today's."""
    return encoded.startswith("argon2$") and Argon2PasswordHasher().must_update(encoded)
