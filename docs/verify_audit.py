#!/usr/bin/env python3
"""Verify an exported audit log, using only Python's standard library: verify_audit.py EXPORT.jsonl [CHECKPOINTS]

body = the bytes of the entry           leaf = SHA-256(0x00 || body)
H0 = SHA-256("pointsman.audit.v1.genesis" 0x00 || chain id)
Hn = SHA-256("pointsman.audit.v1" 0x00 || H(n-1) || leaf)
Checkpoints (var/checkpoints) are compared by number and hash. Check their signatures with any signed-note tool.
"""

import base64
import hashlib
import json
import sys


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def verify(export: str, checkpoints: str = "") -> str:
    hashes: list[bytes] = []
    with open(export, encoding="utf-8") as lines:  # noqa: PTH123
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            body = row["body"].encode()
            entry = json.loads(body)
            if number == 1:
                hashes.append(sha(b"pointsman.audit.v1.genesis\0", entry["chain"].encode()))
            if (row["seq"], entry["seq"]) != (number, number):
                return f"entry {number}: missing or reordered (found {row['seq']}, written as {entry['seq']})"
            if row["prev_hash"] != hashes[-1].hex():
                return f"entry {number}: not chained to entry {number - 1}"
            hashes.append(sha(b"pointsman.audit.v1\0", hashes[-1], sha(b"\0", body)))
            if row["hash"] != hashes[-1].hex():
                return f"entry {number}: altered"
    for note in checkpoints.split("pointsman.audit/")[1::2]:
        seq, digest = int(note.split("\n")[1]), base64.b64decode(note.split("\n")[2])
        if seq >= len(hashes):
            return f"entry {seq}: truncated; a checkpoint proves that it existed"
        if hashes[seq] != digest:
            return f"entry {seq}: its hash differs from the checkpoint's"
    return ""


if __name__ == "__main__":
    notes = open(sys.argv[2], encoding="utf-8").read() if len(sys.argv) > 2 else ""  # noqa: PTH123, SIM115
    sys.exit(verify(sys.argv[1], notes) or print("verified"))
