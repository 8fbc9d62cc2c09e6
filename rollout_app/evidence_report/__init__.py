"""One report of a rollout, fit for a change board: what, who, why, on what evidence, and what came of it.

realised   what a completed rollout did for 30 days, beside what was projected
words      that in sentences
gather     everything as one document
markdown   the same to read
api        /api/v1/rollouts/<id>/report
"""
