"""What the installation serves while faults are injected, and what its database contains afterwards."""

from django.contrib.auth.models import User
from django.db.models import Sum

from controlplane.access.actions import grant_role, issue_key
from controlplane.access.models import Role
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from policies_app.models import Environment
from rollout_app import actions
from rollout_app.models import Approval, ArmTotals, Rollout, Transition
from tests.faults.history import Counted, Moved, Recorded
from tests.support import builders, places
from tests.support.plane import Served, router_key

HALF = [
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 50, "min_minutes": 0},
    {"mode": "full"},
]
# Findings about rows that the test itself creates without audit entries, or before them.
OF_THE_TESTS_OWN = ("unrecorded", "contradicted")


class Scene:
    """Four environments, each for one invariant.

    served   a workload that is pinned and unpinned, and for which batches of known size are reported
    routed   a rollout at a share of one half, whose candidate fails most of its tasks; real routers decide and record
    silent   a rollout that gets no outcomes at all, alternately paused and resumed
    own      a rollout that its author tries to approve
    """

    def __init__(self) -> None:
        environment = builders.environment()
        assignment = builders.served(environment, builders.workload())
        self.served = Served(environment, assignment, router_key(environment.name))
        worse = places.started(plan=HALF)
        self.routed = Served(worse.environment, places.assignment(worse), router_key(worse.environment.name))
        self.worse = worse
        self.silent: Rollout = places.started()
        self.own: Rollout = places.proposed()
        self.own_binding = actions.binding(self.own)
        self.operator_key = self._person("operator", Role.OPERATOR, assignment.workload, self.silent.workload)
        anna = User.objects.get(pk=int(places.ANNA.id))
        self.author_key = _key(anna, Role.APPROVER)
        # Routers that fell back to plain polls soon try long polls again. This tests that they do, not how long they
        # wait.
        Environment.objects.update(poll_interval_ms=500)
        self.first_revision = self.revision()
        self._first_routed = self._routed()

    def _person(self, name: str, role: Role, *workloads: object) -> str:
        person = User.objects.create_user(name)
        grant_role(person, role, "", actor=SYSTEM, reason="a new colleague")
        for workload in workloads:
            workload.owner.members.add(person)  # type: ignore[attr-defined]
        return _key(person, role)

    def revision(self) -> int:
        return Environment.objects.get(pk=self.served.environment.pk).revision

    def rolled_back(self) -> bool:
        return Rollout.objects.get(pk=self.worse.pk).state == "rolled_back"

    def recorded(self) -> Recorded:
        totals = ArmTotals.objects.filter(environment=self.served.environment)
        moves = Transition.objects.filter(rollout__in=(self.silent, self.worse)).order_by("sequence")
        routed = {
            arm: Counted(
                now.tasks - self._first_routed.get(arm, Counted()).tasks,
                now.successes - self._first_routed.get(arm, Counted()).successes,
                now.cost_nusd - self._first_routed.get(arm, Counted()).cost_nusd,
            )
            for arm, now in self._routed().items()
        }
        return Recorded(
            tasks=totals.aggregate(tasks=Sum("tasks"))["tasks"] or 0,
            routed=routed,
            transitions=[
                Moved(
                    str(t.rollout_id),
                    t.sequence,
                    t.event,
                    (t.before_state, t.before_stage),
                    (t.after_state, t.after_stage),
                )
                for t in moves
            ],
            approvers=list(
                Approval.objects.filter(rollout=self.own).values_list("approver_label", flat=True)
            ),
            entries=list(
                Entry.objects.filter(outcome="done").order_by("seq").values_list("action", "reason")
            ),
            revision=self.revision(),
            first_revision=self.first_revision,
            audit=[
                str(finding)
                for finding in verification.verify(with_file=False).findings
                if finding.kind not in OF_THE_TESTS_OWN
            ],
        )

    def _routed(self) -> dict[str, Counted]:
        rows = (
            ArmTotals.objects.filter(environment=self.routed.environment)
            .values("arm")
            .annotate(all=Sum("tasks"), good=Sum("successes"), cost=Sum("cost_sum"))
        )
        return {row["arm"]: Counted(row["all"], row["good"], int(row["cost"])) for row in rows}


def _key(person: User, role: Role) -> str:
    return issue_key(
        "admin", "", person.username, actor=SYSTEM, user=person, scopes=[role], reason="to work"
    )[1]
