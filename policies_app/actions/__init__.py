"""Every write to what can be served and what is served now. The API, console, tasks and commands all call these.

    environments   register_environment  edit_environment  start_new_epoch
    workloads      register_workload  edit_workload
    versions       add_version  add_version_from_text
    assignments    serve_first  stop_serving  set_assignment  pin  unpin  pin_tag  served_assignment
    catalogue      add_model  edit_model                             (`policies_app.catalogue.actions`)

Each runs in one transaction with its audit entry, which is appended last: the audit head is the most contended row,
and this keeps its lock short. `log.attempt` is that transaction; it rolls a refused change back and records the
refusal.
"""

from policies_app.actions.assignments import (
    pin,
    pin_tag,
    serve_first,
    set_assignment,
    stop_serving,
    unpin,
)
from policies_app.actions.environments import edit_environment, register_environment, start_new_epoch
from policies_app.actions.versions import add_version, add_version_from_text
from policies_app.actions.workloads import edit_workload, register_workload
from policies_app.catalogue.actions import add_model, edit_model
from policies_app.snapshots.revisions import served_assignment

__all__ = [
    "add_model",
    "add_version",
    "add_version_from_text",
    "edit_environment",
    "edit_model",
    "edit_workload",
    "pin",
    "pin_tag",
    "register_environment",
    "register_workload",
    "serve_first",
    "served_assignment",
    "set_assignment",
    "start_new_epoch",
    "stop_serving",
    "unpin",
]
