"""`manage.py signing_key`: change the key that signs snapshots and checkpoints, without interrupting routers."""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from controlplane.audit import log
from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context

Texts = list[str]  # private keys, the first one signs checkpoints


class Command(BaseCommand):
    help = "List, rotate and retire the signing keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_subparsers(dest="what", required=True)
        what.add_parser("list", help="print the public keys; the first signs checkpoints, all sign snapshots")
        rotate = what.add_parser("rotate", help="add a new key; the old one continues to sign snapshots")
        rotate.add_argument("--reason", required=True)
        retire = what.add_parser(
            "retire", help="remove an old key, after every router has the new public key"
        )
        retire.add_argument("key_id")
        retire.add_argument("--reason", required=True)

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        with request_context(source="command signing_key"):
            getattr(self, what)(**options)

    def list(self, **options: Any) -> None:
        self.stdout.write(signing.public_key_text())

    def rotate(self, *, reason: str, **options: Any) -> None:
        def with_new() -> Texts:
            texts = signing.private_texts()
            if len(texts) > 1:
                raise CommandError("There are two keys already: retire the old one first.")
            return [signing.new_private_text(), *texts]

        if signing.from_settings():
            self._tell_settings(with_new())
            return
        self._change(with_new, "signing_key.rotate", reason)
        self.stdout.write(
            "Both keys sign snapshots now. Give routers both public keys, then retire the old one:\n"
            f"{signing.public_key_text()}"
        )

    def retire(self, *, key_id: str, reason: str, **options: Any) -> None:
        def without() -> Texts:
            ids = {signing.id_of(signing.public_of(key)): key for key in signing.private_keys()}
            if key_id not in ids:
                raise CommandError(f"There is no key {key_id}; there are {', '.join(ids)}.")
            if key_id == signing.key_id():
                raise CommandError(f"{key_id} is the key that signs checkpoints: rotate first.")
            signing.keep_retired(signing.public_of(ids[key_id]))  # first: its past signatures must stay valid
            return [text for text, known in zip(signing.private_texts(), ids, strict=True) if known != key_id]

        if signing.from_settings():
            self._tell_settings(without())
            return
        self._change(without, "signing_key.retire", reason)
        self.stdout.write(f"{key_id} no longer signs. Its earlier signatures stay valid.")

    def _change(self, change: Callable[[], Texts], action: str, reason: str) -> None:
        """Replace the file and record the entry, one command at a time.

        Every process signs with the new file at once, so the wait for the head of the log comes before it is read.
        """
        with ExitStack() as at_a_failed_commit, transaction.atomic():
            log.locked_head()
            before, before_ids, after = signing.private_texts(), signing.key_ids(), change()
            at_a_failed_commit.enter_context(_undone_on_failure(before, after))
            with _undone_on_failure(before, after):  # before the rollback, which ends this command's turn
                signing.keep_private(after)
                log.record(
                    actor=SYSTEM,
                    action=action,
                    target=("signing_key", signing.key_id()),
                    reason=reason,
                    before={"keys": before_ids},
                    after={"keys": signing.key_ids()},
                )

    def _tell_settings(self, texts: Any) -> None:
        self.stdout.write(
            "The keys come from POINTSMAN_SIGNING_KEY, which this command cannot set. Set it in every process to\n"
            f"{','.join(texts)}\nand restart them; keep the keys in your secret store, if you have one."
        )


@contextmanager
def _undone_on_failure(before: Texts, after: Texts) -> Iterator[None]:
    """Restore the file of keys if the block fails. What a given up key has signed meanwhile stays valid."""
    try:
        yield
    except BaseException:
        if signing.private_texts() == after:
            for text, key in zip(after, signing.private_keys(), strict=True):
                if text not in before:
                    signing.keep_retired(signing.public_of(key))
            signing.keep_private(before)
        raise
