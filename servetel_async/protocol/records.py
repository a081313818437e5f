"""A call detail record (CDR), as the API sends it and as a caller wants it.

The 46 keys of the reference keep their wire names, with the widest type ever seen; all are optional. Unknown keys are
kept in ``extra``: nothing that the server sent is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from servetel_async.protocol.clock import IST, from_epoch, read_stamp, zone_named

if TYPE_CHECKING:
    from datetime import datetime

#: Range of databases and Arrow: a larger number is kept in ``extra``.
Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

#: A price; no NaN and no infinity, which JSON cannot express and which spoil sums.
Float = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
#: A key; never empty.
Id = Annotated[str, msgspec.Meta(min_length=1)]

#: Wire names of our own two fields. If a server sends such a key, it counts as unknown.
EXTRA, ZONE = "servetel_async:extra", "servetel_async:zone"

if TYPE_CHECKING:
    _Extra = dict[str, Any]
    _ZoneName = str | None
else:

    class _Ours:
        """A type without JSON values: the strict decoder refuses a record with such a key; the rescue keeps it."""

    _Extra = _ZoneName = _Ours


class _NoExtra(dict[str, Any]):
    """A dict that stays empty: all records and steps without an unknown key share it.

    A separate dict for each step would take a tenth of a record's memory, and burden the garbage collector.
    """

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a record does not change; copy its extra to add to it")

    # Methods that remove find nothing.
    __setitem__: Any = _refuse
    __ior__: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __reduce__(self) -> str:
        """Pickle and copy to this same object."""
        return "NO_EXTRA"


NO_EXTRA = _NoExtra()


class Circle(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The telecom circle (region) of a number and its operator."""

    operator: str | None = None
    circle: str | None = None


class FlowStep(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """One step of a call's way through the account: an IVR, an agent dialled, answered, hung up.

    ``time`` stays as sent (text, whole or decimal number, even within one list); ``at()`` reads it.
    """

    type: str | None = None
    time: Int | Float | str | None = None
    anstime: Int | Float | str | None = None
    readable_time: str | None = msgspec.field(default=None, name="readableTime")
    id: Int | str | None = None
    name: str | None = None
    value: Any = None
    num: str | None = None
    number: str | None = None
    dialst: str | None = None
    status: Any = None
    dtmf: Int | str | None = None
    email: str | None = None
    s_id: Int | str | None = None
    subtype: str | None = None
    extension: Int | str | None = None
    extra: _Extra = msgspec.field(default=NO_EXTRA, name=EXTRA)

    @property
    def phone(self) -> str | None:
        """Return the number of this step: the API calls it ``num`` on dialling and ``number`` on answering."""
        return self.num if self.num is not None else self.number

    def at(self, zone: Any = IST) -> datetime | None:
        """Return when the step happened, aware; None without a readable time."""
        try:
            return None if self.time is None else from_epoch(float(self.time), zone)
        except ValueError:
            return None

    def __hash__(self) -> int:
        return hash((self.type, self.time))

    def __repr__(self) -> str:
        return f"FlowStep(type={self.type!r}, time={self.time!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same where rich prints it; msgspec's own method would show everything."""
        return [("type", self.type), ("time", self.time)]


class CallRecord(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One call. Frozen, hashable by ``id``, picklable; its ``repr`` shows no number, no name and no recording token.

    Ids and phone numbers are always ``str``; durations are whole seconds; ``date``, ``time`` and ``end_stamp`` are the
    account's wall clock as sent, ``started_at`` and ``ended_at`` the same as aware moments.
    """

    id: Id
    call_id: str | None = None
    uuid: str | None = None
    direction: str | None = None
    description: str | None = None
    detailed_description: str | None = None
    status: str | None = None
    blocked_number_id: str | None = None
    recording_url: str | None = None
    service: str | None = None
    date: str | None = None
    time: str | None = None
    end_stamp: str | None = None
    broadcast_id: str | None = None
    dtmf_input: str | None = None
    call_duration: Int | None = None
    answered_seconds: Int | None = None
    minutes_consumed: Int | None = None
    charges: Int | Float | None = None
    department_name: str | None = None
    agent_number: str | None = None
    agent_number_with_prefix: str | None = None
    agent_name: str | None = None
    client_number: str | None = None
    did_number: str | None = None
    reason: str | None = None
    hangup_cause: str | None = None
    notes: Any = None
    contact_details: Any = None
    missed_agents: tuple[Any, ...] | None = None
    call_flow: tuple[FlowStep, ...] | None = None
    accountid: str | None = None
    agent_ring_time: Int | str | None = None
    circle: Circle | None = None
    agent_hangup_data: Any = None
    transfer_missed_agent: tuple[Any, ...] | None = None
    call_hint: str | None = None
    support_api_call: bool | None = None
    lead_id: str | None = None
    is_incoming_from_broadcast: bool | None = None
    caller_id_num: str | None = None
    sip_agent_ids: Any = None
    dialer_call_details: Any = None
    custom_status: Any = None
    voicemail_recording: bool | None = None
    aws_call_recording_identifier: str | None = None
    #: Every unknown key, and the raw value of each field that could not be typed.
    extra: _Extra = msgspec.field(default=NO_EXTRA, name=EXTRA)
    #: Name of the account's zone, in which ``date``, ``time`` and ``end_stamp`` are written; None for IST.
    zone: _ZoneName = msgspec.field(default=None, name=ZONE)

    @property
    def started_at(self) -> datetime | None:
        """When the call started, aware; None if ``date`` and ``time`` are missing or invalid."""
        return read_stamp(f"{self.date} {self.time}", zone_named(self.zone)) if self.date and self.time else None

    @property
    def ended_at(self) -> datetime | None:
        """When the call ended, aware; None if ``end_stamp`` is missing or invalid."""
        return read_stamp(self.end_stamp, zone_named(self.zone))

    @property
    def is_answered(self) -> bool:
        """Whether the call was answered: the status says so, or seconds were counted."""
        return (self.status or "").lower() == "answered" or (self.answered_seconds or 0) > 0

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return (
            f"CallRecord(id={self.id!r}, date={self.date!r}, time={self.time!r}, direction={self.direction!r}, "
            f"status={self.status!r}, call_duration={self.call_duration!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same where rich prints it; msgspec's own method would show everything."""
        return [(name, getattr(self, name)) for name in ("id", "date", "time", "direction", "status", "call_duration")]


class CallPage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One page of calls.

    Attributes:
        records: the calls, newest first.
        number: the page's number, from 1.
        count: the API's total for the query; None if it sent none.
        limit: the page size that the API echoed; None if it sent none.
        raw: the body as the server sent it, bytes of UTF-8.
    """

    records: tuple[CallRecord, ...]
    number: int
    count: int | None
    limit: int | None
    raw: bytes

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"CallPage(number={self.number}, records={len(self.records)}, count={self.count})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same where rich prints it; msgspec's own method would show everything."""
        return [("number", self.number), ("records", len(self.records)), ("count", self.count)]
