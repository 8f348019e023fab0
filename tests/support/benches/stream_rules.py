"""The two rules of streams, as a property that every bench of a block attaches.

A source of a stream, and likewise of a request with ``valid`` and ``ready``,

1. keeps what it has offered: in the cycle after one with ``valid & ~ready``, ``valid`` is high and the payload is the
   same;
2. does not wait for ``ready`` to raise ``valid``.

The first is watched in every simulation: :func:`attach` for Amaranth's simulator, :class:`StreamRule` for any other
bench. The second has two halves. A *combinational* path from ``ready`` to ``valid`` is found in the netlist, by
:func:`waiting_paths`: a walk over all paths also finds those that no stimulus goes through, and a path that a state
never opens is worth a look, too. A ``valid`` that waits for a ``ready`` of an *earlier cycle* cannot be told from one
that rightly ends with the transfer by its paths; it is found by running: :func:`late_offers`.

Sources are found by walking the signature of a component: a port ``<prefix>valid`` with a port ``<prefix>ready`` of the
opposite direction beside it, at any depth and in arrays; the payload is all other ports of ``valid``'s direction with
this prefix. So members of ``amaranth.lib.stream.Signature``, the requests of ``memory_ports``, an ``AxiStream``
(``tvalid``, ``tready``) and bare ports (``rx_valid``, ``rx_ready``) are found alike. Where a stream is ``always_ready``
nothing ever waits; one that is ``always_valid`` must keep its payload.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Fragment, Signal, Value, ValueLike
from amaranth.hdl._ir import PortDirection, build_netlist
from amaranth.lib.wiring import Component, Flow
from amaranth.sim import Simulator

__all__ = ["Source", "StreamRule", "StreamViolation", "attach", "late_offers", "sources", "waiting_paths"]

#: Ports of the project's request signatures that go beside a request and are no part of it: pulses of their own.
_NO_PAYLOAD = frozenset({"release"})


class StreamViolation(AssertionError):
    """A source of a stream breaks one of the rules."""


class StreamRule:
    """The first rule for one source. Call :meth:`check` once a cycle, with what the next clock edge sees.

    Parameters
    ----------
    path:
        Name of the stream, for messages.
    fields:
        Names of the parts of the payload, for messages; none: they are called by their number.
    """

    def __init__(self, path: str, fields: Sequence[str] = ()) -> None:
        self.path, self._fields = path, fields
        self._waiting: Sequence[int] | None = None
        self._cycle = 0

    def check(self, valid: int, ready: int, *payload: int) -> None:
        """One cycle. Raises :class:`StreamViolation`."""
        if self._waiting is not None:
            if not valid:
                raise StreamViolation(
                    f"{self.path}: valid fell in cycle {self._cycle}, before it was taken: {self._text(self._waiting)}"
                )
            if payload != self._waiting:
                raise StreamViolation(
                    f"{self.path}: the payload changed in cycle {self._cycle}, before it was taken: "
                    f"{self._text(self._waiting)} became {self._text(payload)}"
                )
        self._waiting = payload if valid and not ready else None
        self._cycle += 1

    def reset(self) -> None:
        """A cycle of reset, instead of :meth:`check`: what was offered is forgotten."""
        self._waiting = None
        self._cycle += 1

    def _text(self, payload: Sequence[int]) -> str:
        fields = self._fields or [f"part {number}" for number in range(len(payload))]
        return ", ".join(f"{name} {value:#x}" for name, value in zip(fields, payload, strict=True))


@dataclass(frozen=True)
class Source:
    """A stream or request of which a component is the source. ``path`` is that of its signals, dotted; of an array
    with the index, of ports with a prefix with the prefix behind the dot."""

    path: str
    valid: Value
    ready: Value
    payload: Mapping[str, Value]

    @property
    def can_wait(self) -> bool:
        """It is not ``always_ready``."""
        return not isinstance(self.ready, Const)


def sources(component: Component) -> list[Source]:
    """Streams and requests of which the component is the source, in the order of its signature."""
    return list(_sources(component.signature, component, ()))


def _leaves(name: str, port: Any) -> Iterator[tuple[str, Value]]:
    """A port's values by name: one, or those of an array."""
    if isinstance(port, (list, tuple)):
        for index, element in enumerate(port):
            yield from _leaves(f"{name}[{index}]", element)
    else:
        yield name, Value.cast(port)


def _interfaces(name: str, interface: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(interface, (list, tuple)):
        for index, element in enumerate(interface):
            yield from _interfaces(f"{name}[{index}]", element)
    else:
        yield name, interface


def _sources(signature: Any, interface: Any, path: tuple[str, ...]) -> Iterator[Source]:
    members = dict(signature.members.items())
    ports = {name: member.flow for name, member in members.items() if member.is_port}
    for name, flow in ports.items():
        prefix = name.removesuffix("valid")
        ready = f"{prefix}ready"
        if prefix == name or flow is not Flow.Out or ports.get(ready) is not Flow.In:
            continue
        payload = {
            leaf: value
            for other, its_flow in ports.items()
            if other != name and its_flow is Flow.Out and other.startswith(prefix) and other not in _NO_PAYLOAD
            for leaf, value in _leaves(other.removeprefix(prefix), getattr(interface, other))
        }
        where = ".".join((*path, prefix.rstrip("_"))) if prefix else ".".join(path)
        yield Source(where, Value.cast(getattr(interface, name)), Value.cast(getattr(interface, ready)), payload)
    for name, member in members.items():
        if member.is_signature:
            for leaf, inner in _interfaces(name, getattr(interface, name)):
                yield from _sources(member.signature, inner, (*path, leaf))


def _watched(component: Component, exempt: Collection[str]) -> list[Source]:
    """Sources that can break a rule; every name in ``exempt`` must be one."""
    found = [source for source in sources(component) if source.can_wait]
    unknown = set(exempt) - {source.path for source in found}
    if unknown:
        raise ValueError(f"no such sources: {', '.join(sorted(unknown))}; there are {', '.join(source.path for source in found)}")
    return [source for source in found if source.path not in exempt]


def attach(
    simulator: Simulator,
    component: Component,
    *,
    unless: ValueLike = 0,
    exempt: Mapping[str, str] | None = None,
    domain: str = "sync",
    name: str = "",
) -> None:
    """Watch the first rule at every source of ``component``, from the next run of ``simulator`` on.

    What is broken ends the simulation with a :class:`StreamViolation`, which names stream, cycle (counted from the
    beginning or the last ``Simulator.reset``) and payloads.

    Parameters
    ----------
    component:
        The design of the simulator, or a component in it.
    unless:
        Cycles in which this is not zero are like those of the domain's reset: whatever was offered before them may be
        gone in them and after them.
    exempt:
        Sources that are not watched, by path, each with the reason. Raises ``ValueError`` for one that is none.
    domain:
        Clock domain of all sources.
    name:
        Goes before the paths in messages; needed where several components are watched.
    """
    watched = _watched(component, exempt or {})
    if not watched:
        return
    sampled = [value for source in watched for value in (source.valid, source.ready, *source.payload.values())]

    async def watch(ctx: Any) -> None:
        rules = []
        start = 0
        for source in watched:
            end = start + 2 + len(source.payload)
            path = ".".join(part for part in (name, source.path) if part)
            rules.append((StreamRule(path, list(source.payload)), slice(start, end)))
            start = end
        async for _, reset, forgotten, *values in ctx.tick(domain).sample(unless, *sampled):
            if reset or forgotten:
                for rule, _ in rules:
                    rule.reset()
            else:
                for rule, part in rules:
                    rule.check(*values[part])

    simulator.add_process(watch)


def _components(fragment: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Component]]:
    """Components that a fragment was made from and those in it, with the names of the submodules that lead there."""
    for origin in fragment.origins or ():
        if isinstance(origin, Component):
            yield path, origin
    for number, (part, name, _) in enumerate(fragment.subfragments):
        yield from _components(part, (*path, name or f"[{number}]"))


def waiting_paths(design: Component) -> dict[str, bool]:
    """Whether ``valid`` depends on its own ``ready`` in the same cycle, by some path of the netlist, for each source of
    a component and of all components in it.

    Paths are those of submodules, then the source's; sources that the design makes no use of are not there. A path
    through other components counts, too: one of them breaks the rule then. Vendors' cells (``Instance``) end a path.
    """
    fragment = Fragment.get(design, None)
    directions = {Flow.In: PortDirection.Input, Flow.Out: PortDirection.Output}
    ports = {
        "__".join(map(str, path)): (Value.cast(value), directions[member.flow])
        for path, member, value in design.signature.flatten(design)
        if isinstance(Value.cast(value), Signal)
    }
    found = [(path, source) for path, component in _components(fragment, ()) for source in sources(component)]
    netlist: Any = build_netlist(fragment, ports)

    def depends(valid: Any, ready: Any) -> bool:
        waiting, seen = [valid], {valid}
        while waiting:
            net = waiting.pop()
            if net == ready:
                return True
            if not net.is_const:
                for before, _ in netlist.cells[net.cell].comb_edges_to(net.bit):
                    if before not in seen:
                        seen.add(before)
                        waiting.append(before)
        return False

    depending = {}
    for path, source in found:
        handshake = isinstance(source.valid, Signal) and isinstance(source.ready, Signal)
        if handshake and source.valid in netlist.signals and source.ready in netlist.signals:
            (valid,), (ready,) = netlist.signals[source.valid], netlist.signals[source.ready]
            depending[".".join((*path, source.path))] = not ready.is_const and depends(valid, ready)
    return depending


def late_offers(
    make: Callable[[], Component],
    drive: Callable[[Any, Any], Any],
    *,
    cycles: int = 100,
    exempt: Mapping[str, str] | None = None,
) -> dict[str, tuple[int | None, int | None]]:
    """Sources that offer their first item at another time when nobody is ready than when all always are.

    Parameters
    ----------
    make:
        The component, anew for each run.
    drive:
        A testbench for the component's inputs, ``drive(ctx, component)``; it must not depend on the sources, whose
        ``ready`` it leaves alone. Each run takes ``cycles``.
    exempt:
        Sources that are not asked, by path, each with the reason.

    Returns
    -------
    By path, the cycles of the first ``valid`` with ``ready`` high and with ``ready`` low (None: it never came) of
    sources where they differ. Raises ``AssertionError`` if a source offers nothing even with ``ready``: nothing was
    tried then.
    """
    ready = _first_offers(make(), drive, True, cycles, exempt or {})
    never = [path for path, cycle in ready.items() if cycle is None]
    assert not never, f"offer nothing within {cycles} cycles: {', '.join(never)}"
    refused = _first_offers(make(), drive, False, cycles, exempt or {})
    return {path: (cycle, refused[path]) for path, cycle in ready.items() if refused[path] != cycle}


def _first_offers(
    component: Component, drive: Callable[[Any, Any], Any], ready: bool, cycles: int, exempt: Mapping[str, str]
) -> dict[str, int | None]:
    watched = _watched(component, exempt)
    first: dict[str, int | None] = dict.fromkeys(source.path for source in watched)

    async def use(ctx: Any) -> None:
        for source in watched:
            ctx.set(source.ready, ready)
        for cycle in range(cycles):
            _, _, *values = await ctx.tick().sample(*(source.valid for source in watched))
            for path, valid in zip(first, values, strict=True):
                if valid and first[path] is None:
                    first[path] = cycle

    async def run(ctx: Any) -> None:
        await drive(ctx, component)

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run, background=True)
    simulator.add_testbench(use)
    simulator.run()
    return first
