"""All writes to rollouts, plans and guardrails. The API, the console, tasks and commands call these functions.

    proposals   propose_rollout  submit_rollout  amend_rollout  cancel_rollout
    approvals   approve_rollout  approve_stage  reject_rollout  withdraw_approval  binding  standing_approval
                is_somebody_else
    stages      start_rollout  break_glass_start  advance_rollout  complete_rollout  pause_rollout
                resume_rollout
    rollbacks   roll_back_rollout  abort_rollout  confirm_rolled_back  revert_rollout
    settings    add_plan  edit_plan  remove_plan  set_guardrail  remove_guardrail  own_guardrails
                guardrails_tag
    refusals    refusals  refusal  Surroundings  next_stage  freeze_sentence

Each rollout action takes the rollout, the actor and the reason, and returns the updated rollout. Pass an instance to
act only if the rollout has not changed since you read it; pass an id to act on its current state. When a person
pauses, rolls back or aborts, the action always works on the current state. `transitions` holds the shared mechanics.
"""

from rollout_app.actions.approvals import (
    approve_rollout,
    approve_stage,
    binding,
    is_somebody_else,
    reject_rollout,
    standing_approval,
    withdraw_approval,
)
from rollout_app.actions.proposals import amend_rollout, cancel_rollout, propose_rollout, submit_rollout
from rollout_app.actions.refusals import (
    APPROVE_STAGE,
    Refusal,
    Surroundings,
    freeze_sentence,
    next_stage,
    refusal,
    refusals,
)
from rollout_app.actions.rollbacks import (
    abort_rollout,
    confirm_rolled_back,
    revert_rollout,
    roll_back_rollout,
)
from rollout_app.actions.settings import (
    add_plan,
    edit_plan,
    guardrails_tag,
    own_guardrails,
    remove_guardrail,
    remove_plan,
    set_guardrail,
)
from rollout_app.actions.stages import (
    advance_rollout,
    break_glass_start,
    complete_rollout,
    pause_rollout,
    resume_rollout,
    start_rollout,
)

__all__ = [
    "APPROVE_STAGE",
    "Refusal",
    "Surroundings",
    "abort_rollout",
    "add_plan",
    "advance_rollout",
    "amend_rollout",
    "approve_rollout",
    "approve_stage",
    "binding",
    "break_glass_start",
    "cancel_rollout",
    "complete_rollout",
    "confirm_rolled_back",
    "edit_plan",
    "freeze_sentence",
    "guardrails_tag",
    "is_somebody_else",
    "next_stage",
    "own_guardrails",
    "pause_rollout",
    "propose_rollout",
    "refusal",
    "refusals",
    "reject_rollout",
    "remove_guardrail",
    "remove_plan",
    "resume_rollout",
    "revert_rollout",
    "roll_back_rollout",
    "set_guardrail",
    "standing_approval",
    "start_rollout",
    "submit_rollout",
    "withdraw_approval",
]
