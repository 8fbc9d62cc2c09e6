"""Keeping the policy fresh: poll, verify, keep the last known good in memory and on disk, acknowledge."""
