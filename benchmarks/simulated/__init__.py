"""Made-up traffic for `benchmarks.guardrails`: what both arms of a workload report, by the minute."""
