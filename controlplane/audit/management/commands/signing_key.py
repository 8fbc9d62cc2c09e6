"""`manage.py signing_key`: change the key that signs snapshots and checkpoints, without interrupting routers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from controlplane.audit import log
from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context


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
        texts = signing.private_texts()
        if len(texts) > 1:
            raise CommandError("There are two keys already: retire the old one first.")
        changed = [signing.new_private_text(), *texts]
        if signing.from_settings():
            self._tell_settings(changed)
            return
        self._change(changed, "signing_key.rotate", reason)
        self.stdout.write(
            "Both keys sign snapshots now. Give routers both public keys, then retire the old one:\n"
            f"{signing.public_key_text()}"
        )

    def retire(self, *, key_id: str, reason: str, **options: Any) -> None:
        ids = {signing.id_of(signing.public_of(key)): key for key in signing.private_keys()}
        if key_id not in ids:
            raise CommandError(f"There is no key {key_id}; there are {', '.join(ids)}.")
        if key_id == signing.key_id():
            raise CommandError(f"{key_id} is the key that signs checkpoints: rotate first.")
        left = [text for text, known in zip(signing.private_texts(), ids, strict=True) if known != key_id]
        signing.keep_retired(signing.public_of(ids[key_id]))  # first: its past signatures must stay valid
        if signing.from_settings():
            self._tell_settings(left)
            return
        self._change(left, "signing_key.retire", reason)
        self.stdout.write(f"{key_id} no longer signs. Its earlier signatures stay valid.")

    def _change(self, texts: Any, action: str, reason: str) -> None:
        """Record the entry and replace the file. If the entry cannot be written, restore the file."""
        before, before_ids = signing.private_texts(), _ids()
        try:
            with transaction.atomic():
                signing.keep_private(texts)
                log.record(
                    actor=SYSTEM,
                    action=action,
                    target=("signing_key", signing.key_id()),
                    reason=reason,
                    before={"keys": before_ids},
                    after={"keys": _ids()},
                )
        except BaseException:
            signing.keep_private(before)
            raise

    def _tell_settings(self, texts: Any) -> None:
        self.stdout.write(
            "The keys come from POINTSMAN_SIGNING_KEY, which this command cannot set. Set it in every process to\n"
            f"{','.join(texts)}\nand restart them; keep the keys in your secret store, if you have one."
        )


def _ids() -> Any:
    return [signing.id_of(signing.public_of(key)) for key in signing.private_keys()]
