"""What a router says of a snapshot: applied, or refused and why. Or that it is about to end."""

from typing import Annotated, Literal

import msgspec

from controlplane.core.errors import InvalidInput, MalformedBody

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]{1,128}$")]


class Ack(msgspec.Struct, forbid_unknown_fields=True):
    """`{"state": "applied", "revision": 1842, …}`, `{"state": "rejected", "workload": …, …}` or just `leaving`."""

    state: Literal["applied", "rejected", "leaving"]
    router: _Name | None = None
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    epoch: Annotated[str, msgspec.Meta(max_length=36)] | None = None
    workload: Annotated[str, msgspec.Meta(max_length=120)] | None = None
    digest: Annotated[str, msgspec.Meta(max_length=80)] | None = None
    error: _Text | None = None


_decode = msgspec.json.Decoder(Ack).decode


def read_ack(body: bytes) -> Ack:
    """Raises `InvalidInput` for what is no ack, `MalformedBody` for what is no JSON."""
    try:
        ack = _decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The ack is not valid: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None
    if ack.state == "applied" and ack.revision is None:
        raise InvalidInput("An applied ack names its `revision`.")
    if ack.state == "rejected" and None in (ack.workload, ack.digest, ack.error):
        raise InvalidInput("A rejected ack names the `workload`, the `digest` and the `error`.")
    if "\0" in (ack.error or "") + (ack.workload or "") + (ack.digest or "") + (ack.epoch or ""):
        raise InvalidInput("The ack holds a NUL character, which no text may.")
    return ack
