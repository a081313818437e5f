"""The events of a call: who rings whom, who misses it, who calls back, how long they talk."""

from collections import deque
from random import Random
from typing import Final, TypeVar

import msgspec

from servetel_async.emulator.centre import Agent, CallCentre, Client, Department, Ivr
from servetel_async.emulator.clock import WallClock
from servetel_async.emulator.flow import Flow

__all__ = ["Scenario", "ScenarioWriter"]

_T = TypeVar("_T")

_LONGEST_TALK: Final = 3_600
_MEAN_TALK: Final = 150
_PATIENCE: Final = 40
_CALL_BACKS_KEPT: Final = 500


class Scenario(msgspec.Struct, gc=False, kw_only=True):
    """One call before its record; `end` is an instant, `talked` a number of seconds, 0 if it was missed."""

    flow: Flow
    direction: str
    service: str
    hint: str
    client: Client
    did: str
    end: int
    talked: int = 0
    agent: Agent | None = None
    department: Department | None = None
    ivr: Ivr | None = None
    missed_by: tuple[Agent, ...] = ()
    digit: str | None = None
    broadcast_id: str | None = None
    is_call_back: bool = False


class ScenarioWriter:
    """Invent calls in time order; one of the next outbound calls goes back to a client who was missed."""

    def __init__(self, centre: CallCentre, clock: WallClock, random: Random) -> None:
        self._centre = centre
        self._clock = clock
        self._random = random
        self._missed: deque[Client] = deque(maxlen=_CALL_BACKS_KEPT)

    def write(self, call_id: str, rung: int) -> Scenario:
        """Invent the call whose `init` step is at the instant `rung`."""
        flow = Flow(self._clock, call_id, rung)
        if self._chance(0.64):
            return self._inbound(flow, rung)
        if self._chance(0.84):
            return self._outbound(flow, rung)
        return self._broadcast(flow, rung)

    def _inbound(self, flow: Flow, rung: int) -> Scenario:
        call = Scenario(
            flow=flow,
            direction="inbound",
            service="IVR",
            hint="inbound",
            client=self._client(),
            did=self._pick(self._centre.numbers),
            end=rung,
        )
        at = rung
        if self._chance(0.6):
            call.ivr = self._pick(self._centre.ivrs)
            call.digit = str(1 + self._below(6))
            at += 3 + self._below(12)
            if self._chance(0.08):
                # Lost in the menu: it is played twice, then the caller hangs up.
                call.digit = None
                flow.menu(call.ivr, None, rung + 1)
                flow.menu(call.ivr, None, at)
                return self._missed_at(call, at + self._below(15))
            flow.menu(call.ivr, call.digit, at)
        call.department = department = self._pick(self._centre.departments)
        call.service = "Department" if call.ivr is None else "IVR,Department"
        flow.department(department, at)
        first, second = self._random.sample(department.agents, 2)
        at += 1 + self._below(_PATIENCE)
        if self._chance(0.17):
            flow.ring(first, at, missed=True)
            call.missed_by = (first,)
            if call.ivr is None or self._chance(0.4):
                flow.ring(second, at, missed=True)
                call.missed_by = (first, second)
            return self._missed_at(call, at + self._below(_PATIENCE))
        flow.ring(first, at)
        return self._answered_at(call, first, at + 2 + self._below(20))

    def _outbound(self, flow: Flow, rung: int) -> Scenario:
        department = self._pick(self._centre.departments)
        agent = self._pick(department.agents)
        is_call_back = bool(self._missed) and self._chance(0.7)
        is_dialer = not is_call_back and self._chance(0.2)
        did = self._pick(self._centre.numbers)
        call = Scenario(
            flow=flow,
            direction="outbound",
            service="Dialer" if is_dialer else "Agent",
            hint="dialer" if is_dialer else "clicktocall",
            client=self._missed.popleft() if is_call_back else self._client(),
            did=did,
            end=rung,
            agent=agent,
            is_call_back=is_call_back,
        )
        flow.ring(agent, rung)
        flow.click_to_call(f"SIP/+{agent.extension}@LOOPBACK-UNLIMITED-{did[1:]}", rung)
        at = rung + 4 + self._below(30)
        if self._chance(0.3):
            return self._missed_at(call, at)
        return self._answered_at(call, agent, at)

    def _broadcast(self, flow: Flow, rung: int) -> Scenario:
        broadcast_id = self._pick(self._centre.broadcasts)
        call = Scenario(
            flow=flow,
            direction="outbound",
            service="Broadcast",
            hint="broadcast",
            client=self._client(),
            did=self._centre.numbers[0],
            end=rung,
            broadcast_id=broadcast_id,
        )
        flow.broadcast(broadcast_id, rung)
        at = rung + 5 + self._below(25)
        if self._chance(0.5):
            flow.customer(call.client.number, "Missed", at)
            return self._missed_at(call, at)
        flow.customer(call.client.number, "Answered", at)
        call.talked = 5 + self._below(40)
        call.end = at + call.talked
        flow.listen(at, call.end)
        flow.hang_up(call.end)
        return call

    def _answered_at(self, call: Scenario, agent: Agent, at: int) -> Scenario:
        call.agent = agent
        call.talked = min(5 + int(self._random.expovariate(1 / _MEAN_TALK)), _LONGEST_TALK)
        call.end = at + call.talked
        call.flow.talk(agent, at, call.end)
        call.flow.hang_up(call.end)
        return call

    def _missed_at(self, call: Scenario, at: int) -> Scenario:
        call.end = at
        call.flow.hang_up(at)
        if call.direction == "inbound":
            self._missed.append(call.client)
        return call

    def _client(self) -> Client:
        # Squared: a few clients call often, most call once.
        clients = self._centre.clients
        return clients[int(self._random.random() ** 2 * len(clients))]

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _below(self, bound: int) -> int:
        # Three times as fast as randrange, and this runs a million times for a month.
        return int(self._random.random() * bound)

    def _pick(self, items: tuple[_T, ...]) -> _T:
        return items[self._below(len(items))]
