"""One report of a rollout for a change board: what, who, why, the evidence, and the result.

realised   what a completed rollout did in 30 days, next to the projection
words      the same in sentences
gather     everything as one document
markdown   the document as Markdown
api        /api/v1/rollouts/<id>/report
"""
