"""Parse a router's acks: it applied or refused a snapshot, or is about to shut down."""

from typing import Annotated, Literal

import msgspec

from controlplane.core import strictjson
from controlplane.core.errors import InvalidInput, MalformedBody
from controlplane.core.names import harmless

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]{1,128}$")]


class Ack(msgspec.Struct, forbid_unknown_fields=True):
    """`{"state": "applied", "revision": 1842, …}`, `{"state": "rejected", "workload": …, …}` or only `leaving`."""

    state: Literal["applied", "rejected", "leaving"]
    router: _Name | None = None
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    epoch: Annotated[str, msgspec.Meta(max_length=36)] | None = None
    workload: Annotated[str, msgspec.Meta(max_length=120)] | None = None
    digest: Annotated[str, msgspec.Meta(max_length=80)] | None = None
    error: _Text | None = None


_decode = msgspec.json.Decoder(Ack).decode


def read_ack(body: bytes) -> Ack:
    """Parse an ack. Raises `InvalidInput` if it is not an ack, `MalformedBody` if it is not JSON."""
    try:
        ack = _decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The ack is not valid: {strictjson.in_words(error)}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None
    if ack.state == "applied" and ack.revision is None:
        raise InvalidInput("An ack with state `applied` must have a `revision`.")
    if ack.state == "rejected" and None in (ack.workload, ack.digest, ack.error):
        raise InvalidInput("An ack with state `rejected` must have a `workload`, a `digest` and an `error`.")
    if "\0" in (ack.error or "") + (ack.workload or "") + (ack.digest or "") + (ack.epoch or ""):
        raise InvalidInput("The ack contains a NUL character, which is not allowed.")
    if ack.error is not None:
        ack.error = harmless(ack.error)  # shown on pages and in terminals
    return ack
