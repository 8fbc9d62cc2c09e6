"""All errors that Pointsman raises on purpose, in one hierarchy.

    PointsmanError                     status  code
    ├── InvalidInput                   422     invalid_input          carries `problems`
    │   ├── NameReserved               422     name_reserved
    │   ├── PolicyRefused              422     policy_invalid
    │   ├── TooOld                     422     too_old
    │   └── PlanRefused                422     plan_invalid
    ├── MalformedBody                  400     malformed_body
    │   ├── DuplicateKey               400     duplicate_key
    │   ├── UnknownMember              400     unknown_member         carries `problems`
    │   └── WrongHost                  400     wrong_host
    ├── MalformedAddress               400     malformed_address
    │   └── UnknownParameter           400     unknown_parameter
    ├── Unauthenticated                401     unauthenticated
    │   ├── SignInFailed               401     sign_in_failed
    │   ├── KeyRevoked                 401     key_revoked
    │   └── KeyExpired                 401     key_expired
    ├── Forbidden                      403     forbidden
    │   ├── WrongKeyKind               403     wrong_key_kind
    │   ├── RoleMissing                403     role_missing
    │   ├── KeyLimited                 403     key_limited
    │   ├── NotForAgents               403     not_for_agents
    │   ├── NotYourKey                 403     not_your_key
    │   ├── SecondFactorMissing        403     second_factor_missing
    │   └── SelfApproval               403     self_approval
    ├── NotFound                       404     not_found
    ├── Conflict                       409     conflict
    │   ├── AlreadyExists              409     already_exists
    │   ├── RolloutMoved               409     rollout_moved
    │   ├── RolloutActive              409     rollout_active
    │   ├── IllegalMove                409     illegal_transition
    │   ├── ApprovalMissing            409     approval_missing
    │   ├── ApprovalStale              409     approval_stale
    │   ├── Frozen                     409     frozen
    │   ├── InvitationEnded            409     invitation_ended
    │   ├── LastAdmin                  409     last_admin
    │   └── NotServed                  409     not_served
    ├── StaleVersion                   412     stale_version
    ├── BodyTooLarge                   413     body_too_large
    ├── IdempotencyMismatch            422     idempotency_mismatch
    ├── PreconditionRequired           428     precondition_required
    ├── TooMany                        429     too_many_requests
    └── Unavailable                    503     unavailable
        ├── ClockAhead                 503     clock_ahead            carries `server_time`
        └── Restored                   503     restored

`code` is stable: clients branch on it. The message is one sentence for a person: what was wrong, where, and what to
do. `controlplane.core.problems` turns an error into RFC 9457 problem details for machines and a page for people.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class PointsmanError(Exception):
    """The base class. `detail` is the sentence for people; `extra` holds further members of the problem document."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra: Mapping[str, Any] = extra

    def as_text(self) -> str:
        """Return the error for a terminal: a sentence, and one for each problem."""
        listed = (f"{each.get('path', '')}: {each['message']}" for each in self.extra.get("problems", ()))
        return "\n".join([self.detail, *(f"- {line.removeprefix(': ').rstrip('.')}." for line in listed)])

    def as_problem(self) -> dict[str, Any]:
        """Return the members of an RFC 9457 problem document."""
        return {
            "type": f"urn:pointsman:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.extra,
        }


class InvalidInput(PointsmanError):
    status, code, title = 422, "invalid_input", "The input is not valid"

    def __init__(self, detail: str, problems: Sequence[Mapping[str, Any]] = (), **extra: Any) -> None:
        super().__init__(detail, **({"problems": list(problems)} if problems else {}), **extra)


class NameReserved(InvalidInput):
    code, title = "name_reserved", "The name is reserved for Pointsman itself"


class PolicyRefused(InvalidInput):
    code, title = "policy_invalid", "The policy document is not valid"


class TooOld(InvalidInput):
    code, title = "too_old", "The report is too old"


class PlanRefused(InvalidInput):
    code, title = "plan_invalid", "The plan is not valid"


class MalformedBody(PointsmanError):
    status, code, title = 400, "malformed_body", "The body cannot be read"


class DuplicateKey(MalformedBody):
    code, title = "duplicate_key", "The body contains a duplicate key"


class UnknownMember(MalformedBody):
    code, title = "unknown_member", "The body has an unknown member"


class WrongHost(MalformedBody):
    code, title = "wrong_host", "The host name is not served here"

    def __init__(self) -> None:
        super().__init__("This host name is not served here: it is not in ALLOWED_HOSTS.")


class MalformedAddress(PointsmanError):
    status, code, title = 400, "malformed_address", "The address cannot be read"


class UnknownParameter(MalformedAddress):
    code, title = "unknown_parameter", "The address has an unknown query parameter"


class Unauthenticated(PointsmanError):
    status, code, title = 401, "unauthenticated", "Authentication failed"


class SignInFailed(Unauthenticated):
    code, title = "sign_in_failed", "The sign-in failed"


class KeyRevoked(Unauthenticated):
    code, title = "key_revoked", "The key was revoked"


class KeyExpired(Unauthenticated):
    code, title = "key_expired", "The key has expired"


class Forbidden(PointsmanError):
    status, code, title = 403, "forbidden", "Not allowed"


class WrongKeyKind(Forbidden):
    code, title = "wrong_key_kind", "A key of another kind is needed"

    def __init__(self, detail: str, *, caller: Any = None) -> None:
        super().__init__(detail)
        # the `Actor` that owns the key, for the audit log: views never see the caller of a refused request
        self.caller = caller


class RoleMissing(Forbidden):
    code, title = "role_missing", "A role is missing"


class KeyLimited(Forbidden):
    code, title = "key_limited", "The key's limits do not allow this"


class NotForAgents(Forbidden):
    code, title = "not_for_agents", "An agent may not do that"


class NotYourKey(Forbidden):
    code, title = "not_your_key", "Only the key's owner may receive its text"


class SecondFactorMissing(Forbidden):
    code, title = "second_factor_missing", "A second factor is missing"


class SelfApproval(Forbidden):
    code, title = "self_approval", "You cannot approve your own change"


class NotFound(PointsmanError):
    status, code, title = 404, "not_found", "Not found"


class Conflict(PointsmanError):
    status, code, title = 409, "conflict", "The current state does not allow this"


class AlreadyExists(Conflict):
    code, title = "already_exists", "Already exists"


class RolloutMoved(Conflict):
    code, title = "rollout_moved", "Somebody else moved the rollout first"


class RolloutActive(Conflict):
    code, title = "rollout_active", "Another rollout is under way"


class IllegalMove(Conflict):
    code, title = "illegal_transition", "The rollout cannot do that now"


class ApprovalMissing(Conflict):
    code, title = "approval_missing", "An approval is required"


class ApprovalStale(Conflict):
    code, title = "approval_stale", "The approval was for something else"


class Frozen(Conflict):
    code, title = "frozen", "A freeze is in force"


class InvitationEnded(Conflict):
    code, title = "invitation_ended", "The invitation is no longer valid"


class LastAdmin(Conflict):
    code, title = "last_admin", "At least one full administrator must remain"


class NotServed(Conflict):
    code, title = "not_served", "The environment serves nothing for this workload yet"


class StaleVersion(PointsmanError):
    status, code, title = 412, "stale_version", "It has changed since it was read"


class BodyTooLarge(PointsmanError):
    status, code, title = 413, "body_too_large", "The body is too large"


class IdempotencyMismatch(PointsmanError):
    status, code, title = 422, "idempotency_mismatch", "The idempotency key was used for another request"


class PreconditionRequired(PointsmanError):
    status, code, title = 428, "precondition_required", "An If-Match header is needed"


class TooMany(PointsmanError):
    status, code, title = 429, "too_many_requests", "Too many requests"

    def __init__(self, detail: str, *, retry_after: int, **extra: Any) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.retry_after = retry_after  # seconds


class Unavailable(PointsmanError):
    status, code, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, detail: str, *, retry_after: int = 5, **extra: Any) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.retry_after = retry_after  # seconds


class ClockAhead(Unavailable):
    code, title = "clock_ahead", "The reporter's clock is ahead"


class Restored(Unavailable):
    code, title = "restored", "The control plane's database is older than the routers' state"
