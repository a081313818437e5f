"""The call centre of the served month: its agents, departments, menus, numbers and clients."""

from dataclasses import dataclass
from random import Random
from typing import Final, Self

from servetel_async.emulator.people import CIRCLES, NAMES, OPERATORS, unreal_number

__all__ = ["Agent", "CallCentre", "Client", "Department", "Ivr"]

_DEPARTMENTS: Final = ("Sales", "Support", "Accounts & Billing", "Collections", "विक्रय", "Retention/Win-back")
_IVRS: Final = ("Main menu", "After hours", "भाषा चुनें")
_CLIENTS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Agent:
    """A person who answers calls; the switch dials `extension`."""

    id: str
    name: str
    number: str
    extension: str


@dataclass(frozen=True, slots=True)
class Department:
    """A group of agents that ring in turn."""

    id: str
    name: str
    agents: tuple[Agent, ...]


@dataclass(frozen=True, slots=True)
class Ivr:
    """A spoken menu."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Client:
    """A person outside the centre; `name` is known for those in the address book."""

    number: str
    name: str | None
    circle: dict[str, str]


@dataclass(frozen=True, slots=True)
class CallCentre:
    """One account with its people and menus; equal seeds give equal centres."""

    account: str
    agents: tuple[Agent, ...]
    departments: tuple[Department, ...]
    ivrs: tuple[Ivr, ...]
    numbers: tuple[str, ...]
    broadcasts: tuple[str, ...]
    clients: tuple[Client, ...]

    @classmethod
    def staffed(cls, seed: int) -> Self:
        """Make a centre with 24 agents in 6 departments."""
        random = Random(f"centre {seed}")
        agents = tuple(
            Agent(
                id=f"0501{random.randrange(10**4):04}{index:05}",
                name=name,
                number=unreal_number(random),
                extension=f"0602{random.randrange(10**4):04}{index:05}",
            )
            for index, name in enumerate(random.sample(NAMES, 24))
        )
        return cls(
            account=f"AC{random.randrange(10**6):06}",
            agents=agents,
            departments=tuple(
                Department(id=f"0701{index:05}", name=name, agents=agents[index :: len(_DEPARTMENTS)])
                for index, name in enumerate(_DEPARTMENTS)
            ),
            ivrs=tuple(Ivr(id=f"0801{index:05}", name=name) for index, name in enumerate(_IVRS)),
            numbers=tuple(unreal_number(random) for _ in range(4)),
            broadcasts=tuple(str(random.randrange(1_000, 10_000)) for _ in range(3)),
            clients=tuple(
                Client(
                    number=unreal_number(random),
                    name=random.choice(NAMES) if random.random() < 1 / 3 else None,
                    circle={"operator": random.choice(OPERATORS), "circle": random.choice(CIRCLES)},
                )
                for _ in range(_CLIENTS)
            ),
        )
