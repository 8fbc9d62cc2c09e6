"""Simulated traffic for `benchmarks.guardrails`: the reports on both arms of a workload, by minute."""
