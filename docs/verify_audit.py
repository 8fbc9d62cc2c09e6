#!/usr/bin/env python3
"""Verify an exported audit log, using only Python's standard library: verify_audit.py EXPORT.jsonl [CHECKPOINTS]

EXPORT.jsonl is the export of the whole log as JSON lines; CHECKPOINTS is a copy of the file of signed checkpoints.
Exit code 0: verified. 1: the log was altered. 2: nothing was verified.

body = the bytes of the entry           leaf = SHA-256(0x00 || body)
H0 = SHA-256("pointsman.audit.v1.genesis" 0x00 || chain id)
Hn = SHA-256("pointsman.audit.v1" 0x00 || H(n-1) || leaf)
Checkpoints (var/checkpoints) are compared by number and hash. Check their signatures with any signed-note tool.
"""

import base64
import hashlib
import json
import re
import sys
from typing import Any

NOTE = re.compile(r"pointsman\.audit/(\S+)\n([0-9]{1,18})\n(\S+)\n")
MEMBERS = {"seq", "prev_hash", "hash", "body"}  # only these are verified, so a line has no others


class NothingVerified(Exception):
    """The files cannot be verified at all. The message says why."""


class Forged(Exception):
    """A line shows its readers something that its hash does not cover. The message says what."""


def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate members: this script would read the last one, and somebody else the first."""
    found = dict(members)
    if len(found) < len(members):
        raise Forged("has a member twice")
    return found


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def text_of(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        raise NothingVerified(f"{path} cannot be read: {error.strerror}.") from None


def verify(export: str, checkpoints: str | None = None) -> str:
    """Return what is wrong, or "". Raises `NothingVerified`."""
    notes = notes_of(checkpoints) if checkpoints is not None else []
    hashes: list[bytes] = []
    chain = ""
    for number, line in enumerate(text_of(export).removesuffix("\n").split("\n"), 1):
        try:
            row = json.loads(line, object_pairs_hook=once)
            body = row["body"].encode()
            entry = json.loads(body, object_pairs_hook=once)
            numbers, given, previous = (row["seq"], entry["seq"]), row["hash"], row["prev_hash"]
            if further := sorted(set(row) - MEMBERS):
                raise Forged(f"has a further member {further[0]!r}")
            if number == 1:
                chain = entry["chain"]
                hashes.append(sha(b"pointsman.audit.v1.genesis\0", chain.encode()))
        except Forged as error:
            return f"entry {number}: {error}"
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            if number > 1:
                return f"entry {number}: cannot be read"
            raise NothingVerified(f"{export} holds no entries: export the log as JSON lines.") from None
        if numbers != (number, number):
            return f"entry {number}: missing or reordered (found {numbers[0]}, written as {numbers[1]})"
        if previous != hashes[-1].hex():
            return f"entry {number}: not chained to entry {number - 1}"
        hashes.append(sha(b"pointsman.audit.v1\0", hashes[-1], sha(b"\0", body)))
        if given != hashes[-1].hex():
            return f"entry {number}: altered"
    return next(filter(None, (compare(note, chain, hashes) for note in notes)), "")


def notes_of(path: str) -> list[tuple[str, int, str]]:
    """Return the checkpoints in a file: chain id, number, hash in base64."""
    notes = [(chain, int(seq), digest) for chain, seq, digest in NOTE.findall(text_of(path))]
    if not notes:
        raise NothingVerified(f"{path} holds no checkpoint.")
    return notes


def compare(note: tuple[str, int, str], chain: str, hashes: list[bytes]) -> str:
    of_chain, seq, digest = note
    if of_chain != chain:
        return f"entry {seq}: its checkpoint is of another log ({of_chain})"
    if seq >= len(hashes):
        return f"entry {seq}: truncated; a checkpoint proves that it existed"
    if base64.b64encode(hashes[seq]).decode() != digest:
        return f"entry {seq}: its hash differs from the checkpoint's"
    return ""


def main(arguments: list[str]) -> int:
    usage = "\n".join((__doc__ or "").splitlines()[:5])
    if "--help" in arguments or "-h" in arguments:
        print(usage)
        return 0
    try:
        if len(arguments) not in (1, 2):
            raise NothingVerified("Name the exported log, and a file of checkpoints if you have one.")
        found = verify(*arguments)
    except NothingVerified as error:
        print(f"Nothing was verified. {error}\n\n{usage}", file=sys.stderr)
        return 2
    print(found or "verified", file=sys.stderr if found else sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
