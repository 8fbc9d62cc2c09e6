"""Password hashes, two at a time: each takes 100 MB and, for a moment, every processor.

The limit is each process's. Who waits for it sits in threads of their own (`controlplane.server.bridge`), so that
a crowd that signs in does not keep the API's requests waiting.
"""

import threading

from django.contrib.auth.hashers import Argon2PasswordHasher

AT_ONCE = 2
_free = threading.BoundedSemaphore(AT_ONCE)


class TwoAtOnceArgon2Hasher(Argon2PasswordHasher):
    """Argon2id with Django's costs. Its hashes are Django's: one replaces the other in a running instance."""

    def encode(self, password: str, salt: str) -> str:
        with _free:
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        with _free:
            return super().verify(password, encoded)

    def must_update(self, encoded: str) -> bool:
        """Never by itself: Django would save a new hash without an entry, and `audit verify` would find it changed.

        `controlplane.access.sign_in.passwords` does it, with an entry.
        """
        return False


def is_outdated(encoded: str) -> bool:
    """Whether a hash was made at other costs than today's."""
    return encoded.startswith("argon2$") and Argon2PasswordHasher().must_update(encoded)
