"""Keep the policy up to date: poll, verify, keep the last known good in memory and on disk, acknowledge."""
