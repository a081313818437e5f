"""The `call_flow` of a record: the steps of the switch, in the shapes that the reference sample shows."""

from typing import Any

from servetel_async.emulator.centre import Agent, Department, Ivr
from servetel_async.emulator.clock import WallClock

__all__ = ["Flow"]


class Flow:
    """Build one call's steps in time order; `at` is always an instant in seconds."""

    __slots__ = ("_clock", "steps")

    def __init__(self, clock: WallClock, call_id: str, at: int) -> None:
        self._clock = clock
        # Only the first step has its time as text, as in the sample.
        self.steps: list[dict[str, Any]] = [
            {"type": "init", "value": call_id, "time": str(at), "readableTime": clock.readable(at)},
        ]

    def menu(self, ivr: Ivr, digit: str | None, at: int) -> None:
        self._add({"type": "IVR", "id": ivr.id, "name": ivr.name, "value": digit}, at)

    def department(self, department: Department, at: int) -> None:
        self._add({"type": "Department", "id": department.id, "name": department.name}, at)

    def ring(self, agent: Agent, at: int, *, missed: bool = False) -> None:
        dialled = "Missed" if missed else "Dialed"
        self._add({"type": "Agent", "id": agent.id, "name": agent.name, "dialst": dialled, "num": agent.number}, at)

    def click_to_call(self, trunk: str, at: int) -> None:
        self._add({"type": "ClickToCall", "name": trunk}, at)

    def broadcast(self, broadcast_id: str, at: int) -> None:
        self._add({"type": "Broadcast", "id": broadcast_id, "name": f"campaign {broadcast_id}"}, at)

    def customer(self, number: str, state: str, at: int) -> None:
        self._add({"type": "Customer", "id": None, "name": None, "dialst": state, "number": number}, at)

    def talk(self, agent: Agent, at: int, until: int) -> None:
        """Add the answer and the conversation: the latter is the step without a `type`."""
        self.steps.append(
            {
                "type": "Agent",
                "id": agent.id,
                "name": agent.name,
                "number": agent.extension,
                "time": at,
                "dialst": "Answered",
                "readableTime": self._clock.readable(at),
            }
        )
        self.listen(at, until)

    def listen(self, at: int, until: int) -> None:
        self.steps.append({"anstime": at, "time": until})

    def hang_up(self, at: int) -> None:
        self._add({"type": "hangup"}, at)

    def _add(self, step: dict[str, Any], at: int) -> None:
        step["time"] = at
        step["readableTime"] = self._clock.readable(at)
        self.steps.append(step)
