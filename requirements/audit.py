"""Check the locked packages for known vulnerabilities (`pip-audit`). A failed check is never reported as good.

Exit with 1 if a package has one. If the advisories cannot be reached, or the mirror has none, print the reason to
stderr and exit with 0, so that `make check` works offline; with AUDIT_STRICT=1 exit with 1.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = [
    sys.executable,
    "-m",
    "pip_audit",
    "--format",
    "json",
    "--progress-spinner",
    "off",
    "--timeout",
    "15",
]
OPTIONS = ["--disable-pip", "--require-hashes", "-r", str(HERE / "base.txt"), "-r", str(HERE / "s3.txt")]


def main() -> int:
    done = subprocess.run([*COMMAND, *OPTIONS], capture_output=True, text=True)  # noqa: S603
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]
        return _unknown(f"the advisories cannot be reached ({reason})")
    bad = [(one, vuln) for one in found for vuln in one.get("vulns", [])]
    for one, vuln in bad:
        fixed = ", ".join(vuln.get("fix_versions", [])) or "no version yet"
        print(f"pip-audit: {one['name']} {one['version']}: {vuln['id']}; fixed in {fixed}")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    if bad:
        return 1
    if skipped:
        return _unknown(
            f"there are no data about {len(skipped)} of {len(found)} packages ({', '.join(skipped[:3])}, …)"
        )
    print(f"pip-audit: {len(found)} packages, no known vulnerability")
    return 0


def _unknown(why: str) -> int:
    print(f"pip-audit: NOT CHECKED: {why}", file=sys.stderr)
    return 1 if os.environ.get("AUDIT_STRICT") == "1" else 0


if __name__ == "__main__":
    sys.exit(main())
