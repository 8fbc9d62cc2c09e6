"""What rollouts follow, set up by people: plans, guardrails, and the first steps of a new instance."""
