"""Terraform: `plan` shows what a configuration would change, `plan_and_apply` changes it once the plan is confirmed."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from taskyard.contracts.kind import Kind, Lock, OnLost


class TerraformInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Input of `plan` and `plan_and_apply`: a configuration's directory on the worker and its variables."""

    directory: Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=4096)]
    variables: dict[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$(?!\n)", max_length=255)], Any] = {}
    auto_confirm: bool = False


PLAN = Kind(
    name="plan",
    summary="show what a Terraform configuration would change",
    input=TerraformInput,
    example={"directory": "/srv/terraform/prod"},
    shown_values=("directory",),
    shown_names=("variables",),
    timeout_seconds=1800,
    max_attempts=3,
    queue_required=True,
)
PLAN_AND_APPLY = Kind(
    name="plan_and_apply",
    summary="change what a Terraform configuration describes, once its plan is confirmed",
    input=TerraformInput,
    example={"directory": "/srv/terraform/prod", "variables": {"size": 3}},
    shown_values=("directory",),
    shown_names=("variables",),
    timeout_seconds=1800,
    max_attempts=3,
    lock=Lock.QUEUE,
    approval=True,
    on_lost=OnLost.HOLD,
    queue_required=True,
)
