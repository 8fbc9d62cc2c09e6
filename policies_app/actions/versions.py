"""Save a policy document as a workload's next version."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Max

from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, PolicyRefused
from pointsman.errors import PolicyInvalid
from pointsman.policy import Locate, canonical, digest, parse
from policies_app.catalogue.validation import problems_of, told
from policies_app.models import PolicyVersion, Workload


def add_version(
    workload: Workload,
    document: Mapping[str, Any],
    *,
    actor: Actor,
    note: str = "",
    locate: Locate | None = None,
) -> PolicyVersion:
    """Save a document as the workload's next version.

    Raises `PolicyRefused` with every problem at once, or `AlreadyExists` with the version that has the same content: if
    two numbers had one digest, an approval of one could pass for the other.
    """
    problems = problems_of(document, workload, locate=locate)
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise PolicyRefused(
            f"The document has {len(errors)} problem{'s' if len(errors) > 1 else ''}; nothing was saved.",
            told(problems),
        )
    target = ("workload", workload.name)
    with log.attempt(actor=actor, action="version.add", target=target, workload=workload.name, reason=note):
        Workload.objects.select_for_update(no_key=True).get(pk=workload.pk)  # serializes the numbering
        content = digest(document)
        if same := workload.versions.filter(digest=content).first():
            raise AlreadyExists(
                f"Version {same.number} of {workload.name} has exactly this content ({content}).",
                version=same.number,
            )
        last = workload.versions.aggregate(last=Max("number"))["last"] or 0
        version = PolicyVersion.objects.create(
            workload=workload,
            number=last + 1,
            digest=content,
            canonical=canonical(document).decode(),
            note=note,
            author_label=actor.label,
            author_user_id=actor.user_id,
        )
        log.record(
            actor=actor,
            action="version.add",
            target=("version", f"{workload.name}/{version.number}"),
            workload=workload.name,
            reason=note,
            after={"number": version.number, "digest": content},
        )
    return version


def add_version_from_text(workload: Workload, text: str, *, note: str, actor: Actor) -> PolicyVersion:
    """Save the document in `text` (YAML or JSON). Raises `PolicyRefused` with lines and columns."""
    try:
        document = parse(text)
    except PolicyInvalid as error:
        problems = [problem.as_dict() for problem in error.problems]
        raise PolicyRefused("The text is not a policy document; nothing was saved.", problems) from None
    return add_version(workload, document.data, actor=actor, note=note, locate=document.locate)
