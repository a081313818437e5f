"""One call after another: each becomes the JSON that the API serves and a compact row for the filters."""

from random import Random
from typing import Any, Final

import msgspec

from servetel_async.emulator.centre import CallCentre
from servetel_async.emulator.clock import WallClock
from servetel_async.emulator.quirks import encode_as_php, roughen
from servetel_async.emulator.scenario import Scenario, ScenarioWriter

__all__ = ["Call", "CallGenerator"]

_FIRST_CALL: Final = 11_930_963


class Call(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A row of the table: the encoded record and the values for filters and order.

    `start`, `end` and `inserted` are instants in seconds: when the call began, when it ended, when its record appeared.
    `serial` orders calls of the same second, `duration` is in seconds.
    """

    start: int
    end: int
    inserted: int
    serial: int
    id: str
    call_id: str
    body: bytes
    direction: str
    answered: bool
    client_number: str
    did_number: str
    duration: int
    service: str
    is_broadcast: bool
    agent: str
    department: str
    ivr: str


class CallGenerator:
    """Make the calls of one centre: the same for the same seed and the same sequence of `make`."""

    def __init__(self, centre: CallCentre, clock: WallClock, *, seed: str, php_quirks: bool) -> None:
        self._centre = centre
        self._clock = clock
        self._php_quirks = php_quirks
        self._random = Random(seed)
        self._scenarios = ScenarioWriter(centre, clock, self._random)
        self._machine = f"{Random(centre.account).getrandbits(40):010x}"

    def make(self, start: int, serial: int, *, inserted_at: int = 0, **fields: Any) -> Call:
        """Make a call.

        Args:
            start: the instant it began, in seconds.
            serial: its number, unique in the table.
            inserted_at: the instant at which its record appeared, if later than its end.
            **fields: keys of the record to serve with these values.
        """
        call_id = f"{start}.{_FIRST_CALL + serial}"
        rung = start + 1 + int(self._random.random() * 5)
        scenario = self._scenarios.write(call_id, rung)
        record = self._record(scenario, call_id, start, rung)
        # The record is written after the call ends: its id is younger than the call.
        inserted = max(scenario.end + 3, inserted_at)
        record["id"] = f"{inserted:08x}{self._machine}{serial & 0xFFFFFF:06x}"
        # Filters use a replaced value too, unless its type occurs in no honest record.
        honest = record | {key: value for key, value in fields.items() if type(value) is type(record.get(key))}
        record |= fields
        if self._php_quirks:
            roughen(record, serial)
        return Call(
            start=start,
            end=scenario.end,
            inserted=inserted,
            serial=serial,
            id=str(record["id"]),
            call_id=honest["call_id"],
            body=encode_as_php(record, serial) if self._php_quirks else msgspec.json.encode(record),
            direction=honest["direction"],
            answered=honest["status"] == "answered",
            client_number=honest["client_number"],
            did_number=honest["did_number"],
            duration=honest["call_duration"],
            service=honest["service"],
            is_broadcast=scenario.broadcast_id is not None,
            agent=scenario.agent.id if scenario.agent else "",
            department=scenario.department.id if scenario.department else "",
            ivr=scenario.ivr.id if scenario.ivr else "",
        )

    def _record(self, call: Scenario, call_id: str, start: int, rung: int) -> dict[str, Any]:
        """Write the 46 keys of the reference sample, in its order."""
        date, time = self._clock.split(start)
        random = self._random
        agent, client, talked = call.agent, call.client, call.talked
        outcome = _OUTCOMES[call.direction == "inbound", talked > 0]
        return {
            "id": None,
            "call_id": call_id,
            # uniqid() of PHP: seconds and microseconds in hexadecimal.
            "uuid": f"{rung:08x}{random.getrandbits(20):05x}",
            "direction": call.direction,
            "description": outcome[0],
            "detailed_description": None,
            "status": "answered" if talked else "missed",
            "blocked_number_id": None,
            "recording_url": _RECORDING.format(call_id, random.getrandbits(128)),
            "service": call.service,
            "date": date,
            "time": time,
            "end_stamp": self._clock.stamp(call.end),
            "broadcast_id": call.broadcast_id,
            "dtmf_input": call.digit,
            "call_duration": call.end - rung,
            "answered_seconds": talked,
            # Both legs of a click-to-call are billed, by the minute begun.
            "minutes_consumed": -(-talked // 60) * (2 if call.hint == "clicktocall" else 1),
            "charges": 0 if call.direction == "inbound" else talked // 15 * 0.25,
            "department_name": call.department.name if call.department else None,
            "agent_number": agent.number if agent else None,
            "agent_number_with_prefix": agent.number if agent else None,
            "agent_name": agent.name if agent else None,
            "client_number": client.number,
            "did_number": call.did,
            "reason": outcome[1],
            "hangup_cause": outcome[2],
            "notes": {"message": "called back"} if call.is_call_back else None,
            "contact_details": {"name": client.name, "number": client.number} if client.name else None,
            "missed_agents": [
                {"id": missed.id, "name": missed.name, "number": missed.number} for missed in call.missed_by
            ],
            "call_flow": call.flow.steps,
            "accountid": self._centre.account,
            "agent_ring_time": "N.A." if call.direction == "outbound" else str(call.end - rung - talked),
            "circle": client.circle,
            "agent_hangup_data": None,
            "transfer_missed_agent": [],
            "call_hint": call.hint,
            "support_api_call": call.hint == "clicktocall",
            "lead_id": f"L{random.getrandbits(24)}" if call.hint == "dialer" else None,
            "is_incoming_from_broadcast": False,
            "caller_id_num": call.did,
            "sip_agent_ids": None,
            "dialer_call_details": {"campaign": "renewals", "attempt": 1} if call.hint == "dialer" else None,
            "custom_status": None,
            "voicemail_recording": False,
            "aws_call_recording_identifier": f"{random.getrandbits(128):032x}",
        }


# .invalid is reserved: no recording can ever be requested from a real host.
_RECORDING: Final = "https://recordings.invalid/file/recording?callId={}&type=rec&token={:032x}"

#: (inbound, answered) -> description, reason, hangup_cause
_OUTCOMES: Final = {
    (True, True): ("Call answered by agent", "disconnected_by_caller", "Normal clearing"),
    (True, False): ("Call missed by agents", "noanswer", "No answer"),
    (False, True): ("Call answered by customer", "disconnected_by_callee", "Normal clearing"),
    (False, False): ("Call missed by customer", "noanswer", "Unspecified. No other cause codes applicable."),
}
