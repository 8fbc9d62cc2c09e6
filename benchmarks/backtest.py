"""`manage.py backtest` on a million recorded tasks: seconds and memory of a fresh process, from CSV and from Parquet.

`python benchmarks/backtest.py [rows] [folder]`. The folder keeps the files for another run. Each row is a task with the
outcomes of two models: three request inputs, success, cost, confidence and latency; one in a hundred has no outcome of
the strong model. Memory is the process's peak (ru_maxrss), including Django and all libraries.
"""

import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEAK, STRONG = "mistral/mixtral-8x7b", "openai/gpt-4-1106"
HEADER = (
    "endpoint", "prompt_tokens", "attributes.tier", f"{WEAK}:success", f"{WEAK}:cost_usd", f"{WEAK}:confidence",
    f"{WEAK}:latency_ms", f"{STRONG}:success", f"{STRONG}:cost_usd", f"{STRONG}:latency_ms",
)  # fmt: skip
POLICY = f"""
format: 1
workload: measured
models:
  small: {{model: {WEAK}}}
  large: {{model: {STRONG}}}
default: small
fallback: [large, small]
inputs:
  tier: {{type: string}}
rules:
  - {{id: long, when: "request.prompt_tokens > 3000", use: large}}
  - {{id: chat, when: "request.endpoint == '/chat' && request.attributes.tier == 'pro'", use: large}}
escalate: {{to: large, on: [refusal], when: "response.confidence < 0.3"}}
"""


def write_csv(path: Path, rows: int) -> None:
    chance = random.Random(7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for _ in range(rows):
            tokens, confidence = chance.randrange(50, 4_000), round(chance.random(), 3)
            writer.writerow((
                chance.choice(("/tickets/summary", "/search", "/chat")), tokens, chance.choice(("free", "pro")),
                int(chance.random() < 0.4 + 0.5 * confidence), f"{tokens * 24e-8:.9f}", confidence,
                chance.randrange(100, 900), "" if chance.random() < 0.01 else int(chance.random() < 0.9),
                f"{tokens * 24.7e-6:.9f}", chance.randrange(400, 4_000),
            ))  # fmt: skip


def write_parquet(path: Path, table: Path) -> None:
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    parquet.write_table(arrow_csv.read_csv(table), path)


def measure(name: str, *arguments: str) -> None:
    """Print one line: elapsed seconds, processor seconds, and peak MB of a fresh process."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "manage.py"), "backtest", *arguments]
    began = time.monotonic()
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=nowhere)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    seconds, processor = time.monotonic() - began, used.ru_utime + used.ru_stime
    print(f"{name:44} {seconds:7.1f} s {processor:7.1f} s {used.ru_maxrss / 1_000:7.0f} MB", flush=True)


def write(home: Path, rows: int) -> None:
    table, columns = home / f"{rows}.csv", home / f"{rows}.parquet"
    if not table.exists():
        write_csv(table, rows)
    if not columns.exists():
        write_parquet(columns, table)


def main(rows: int, home: Path) -> None:
    table, columns, policy, other = (
        home / name for name in (f"{rows}.csv", f"{rows}.parquet", "policy.yaml", "other.yaml")
    )
    policy.write_text(POLICY)
    other.write_text(POLICY.replace("> 3000", "> 2000"))
    # In a separate process, because a child's peak memory starts with its parent's.
    subprocess.run([sys.executable, __file__, str(rows), str(home), "--write"], check=True)
    sizes = [file.stat().st_size / 1e6 for file in (table, columns)]
    print(f"{rows:,} tasks, {sizes[0]:.0f} MB of CSV, {sizes[1]:.0f} of Parquet")
    print(f"{'':44} {'clock':>9} {'processor':>9} {'peak':>10}")
    measure("a policy, CSV", str(policy), "--tasks", str(table))
    measure("a policy, Parquet", str(policy), "--tasks", str(columns))
    measure("two policies, CSV", str(policy), str(other), "--tasks", str(table))
    score = ("--score", "prompt_tokens")
    measure("a policy, CSV, its score judged", str(policy), "--tasks", str(table), *score)
    measure("a sweep of 11, CSV", str(policy), "--tasks", str(table), "--sweep", "escalate:0.1:0.9:11")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if "--write" in sys.argv:
        write(Path(sys.argv[2]), number)
    elif len(sys.argv) > 2:
        main(number, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(number, Path(folder))
