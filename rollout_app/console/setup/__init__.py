"""Pages to set up what rollouts use: plans, guardrails, and the first steps of a new instance."""
