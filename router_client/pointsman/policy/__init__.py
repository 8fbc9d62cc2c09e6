"""The policy document, format 1: parse, validate, canonical bytes, digest, schema.

Routers and the control plane share this package, so the policy that was validated is the policy that runs.
"""

from pointsman.policy.canonical import canonical, completed, digest
from pointsman.policy.catalogue import CatalogueModel
from pointsman.policy.document import Document, Locate
from pointsman.policy.schema import json_schema
from pointsman.policy.text import parse
from pointsman.policy.validate import WorkloadRules, load, validate
from pointsman.problems import Problem

__all__ = [
    "CatalogueModel", "Document", "Locate", "Problem", "WorkloadRules", "canonical", "completed", "digest",
    "json_schema", "load", "parse", "validate",
]  # fmt: skip
