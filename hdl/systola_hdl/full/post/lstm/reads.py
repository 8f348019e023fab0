"""Read side of the LSTM path: the preactivations and cell states of one bundle of hidden units after the other."""

from __future__ import annotations

import itertools

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode
from systola_hdl.common.address_generator import AddressGenerator
from systola_hdl.common.credit_queue import CreditQueue
from systola_hdl.common.layouts import payload_layout
from systola_hdl.common.memory_ports import ADDRESS_BITS, ActivationRead
from systola_hdl.full.post.lstm.cell import GATES

__all__ = ["LstmReads", "bundle_units", "destination_layout", "operand_layout"]


def bundle_units(config: Config) -> int:
    """Hidden units of a bundle: those whose gates the requantizers make together, at least one."""
    return max(config.requantize_lanes, len(GATES)) // len(GATES)


def destination_layout(config: Config) -> data.StructLayout:
    """Destination of a bundle's results: addresses of the cell states and hidden states, and the number of units
    written."""
    return data.StructLayout(
        {"cell": signed(ADDRESS_BITS), "hidden": signed(ADDRESS_BITS), "units": range(bundle_units(config) + 1)}
    )


def operand_layout(config: Config) -> data.StructLayout:
    """What is read for a bundle."""
    units = bundle_units(config)
    return data.StructLayout(
        {
            "preactivation": data.ArrayLayout(data.ArrayLayout(signed(16), len(GATES)), units),
            "cell": data.ArrayLayout(signed(16), units),
        }
    )


class LstmReads(Component):
    """Walk the LSTM's loops and read each bundle's operands, one time step after another.

    Addresses and the bytes that a read needs are worked out ahead, in five stages and a queue of :attr:`read_entries`
    reads. A read goes out while its bundle has an entry in the queue of operands; the reads of a time step wait until
    the step before is written.

    Attributes
    ----------
    start, instruction, finished, step_done, output_idle, activations:
        See :class:`~systola_hdl.full.post.lstm.path.LstmPath`.
    fed: In(1)
        The oldest bundle has been taken.
    place, place_valid:
        ``place_valid`` for one cycle: the cell states of another bundle are requested, and ``place`` is the destination
        of its results.
    operand, operand_valid:
        For one cycle: a bundle's operands.
    bad: Out(1)
        The oldest bundle that was not taken has a read outside the memory.
    """

    #: Entries of the queue of operands: bundles read ahead.
    bundle_entries = 16
    #: Entries of the queue of reads: enough beyond the number of stages to sustain one read a cycle.
    read_entries = 16
    #: Cycles from an item of the loop nest to its operand, besides the memory's: stages, queue, read, answer.
    latency = 5 + 1 + 1 + 1

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "instruction": In(payload_layout(Opcode.LSTM)),
                "finished": Out(1),
                "step_done": Out(1),
                "output_idle": In(1),
                "activations": Out(ActivationRead(config)),
                "fed": In(1),
                "place": Out(destination_layout(config)),
                "place_valid": Out(1),
                "operand": Out(operand_layout(config)),
                "operand_valid": Out(1),
                "bad": Out(1),
            }
        )
        #: A read of a bundle's cell states (``of_cell``) or preactivations. ``skipped``: the bundle has no units,
        #: ``step_last``: it is the last read of a time step, ``final``: it belongs to the last time step.
        self.read_layout = data.StructLayout(
            {
                "address": signed(ADDRESS_BITS),
                "outside": 1,
                "skipped": 1,
                "of_cell": 1,
                "step_last": 1,
                "final": 1,
                "place": destination_layout(config),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        units = bundle_units(self.config)
        columns = units * len(GATES)
        reads = -(-2 * columns // self.config.rows)  # number of reads of preactivations a bundle
        nest = self._build_nest(m, units, columns, reads)
        read, valid, issue = self._build_plan(m, nest, units, columns)

        # A time step's reads wait until the one before is written.
        waiting, room = Signal(range(self.bundle_entries + 1)), Signal(init=1)
        ended, final, complete = Signal(), Signal(), Signal()
        present, bundle_issue = Signal(), Signal()
        m.d.comb += [
            present.eq(valid & ~ended),
            self.activations.valid.eq(present & ~read.skipped & ~read.outside & (~read.of_cell | room)),
            self.activations.address.eq(read.address),
            issue.eq((self.activations.valid & self.activations.ready) | (present & read.skipped)),
            bundle_issue.eq(issue & read.of_cell & ~read.skipped),
            self.place.eq(read.place),
            self.place_valid.eq(bundle_issue),
            self.bad.eq(present & ~read.skipped & read.outside & (waiting == 0)),
        ]
        # One entry is kept free, because `room` is a cycle late.
        m.d.sync += [waiting.eq(waiting + bundle_issue - self.fed), room.eq(waiting < self.bundle_entries - 1)]

        # A bundle that was fed holds credits of the output stage until it is written, so none is left when that is
        # idle.
        m.d.comb += [complete.eq(ended & (waiting == 0) & self.output_idle), self.step_done.eq(complete & ~final)]
        with m.If(issue & read.step_last):
            m.d.sync += [ended.eq(1), final.eq(read.final)]
        with m.Elif(complete):
            m.d.sync += ended.eq(0)
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)
        with m.Elif(complete & final):
            m.d.sync += self.finished.eq(1)
        self._build_answers(m, reads)
        return m

    def _build_nest(self, m: Module, units: int, columns: int, reads: int) -> AddressGenerator:
        """Addresses of preactivation, cell state and hidden state."""
        config, instruction = self.config, self.instruction
        m.submodules.nest = nest = AddressGenerator(("block", "group", "x", "bundle", "operand"), addresses=3, held=True)
        starting = Signal()
        begin = nest.start.payload
        m.d.sync += starting.eq(self.start)
        m.d.comb += [
            nest.start.valid.eq(starting),
            *(begin.counts[loop].eq(instruction[f"{loop}_count"]) for loop in ("block", "group", "x")),
            begin.counts.bundle.eq(config.columns // columns),
            begin.counts.operand.eq(reads + 1),
        ]
        steps = {
            "block": (instruction.block_step_preactivation, 0, instruction.block_step),
            "group": (2 * config.columns, config.columns // 2, config.columns // 4),
            "x": (instruction.x_step_preactivation, instruction.x_step_cell, instruction.x_step),
            "bundle": (2 * columns, 2 * units, units),
            "operand": (config.rows, 0, 0),
        }
        for number, base in enumerate(("preactivation", "cell", "hidden")):
            m.d.comb += begin.base[number].eq(instruction[base])
            m.d.comb += [begin.steps[loop][number].eq(step[number]) for loop, step in steps.items()]
        return nest

    def _build_plan(self, m: Module, nest: AddressGenerator, units: int, columns: int) -> tuple[data.View, Signal, Signal]:
        """Work out address, bounds and destination of each read; return the next read, whether there is one, and the
        signal that takes it."""
        config, instruction = self.config, self.instruction
        bundles = config.columns // columns
        m.submodules.plan = plan = CreditQueue(self.read_layout, self.read_entries)
        accept, valids = Signal(), Signal(5)
        m.d.comb += [nest.o.ready.eq(plan.free), accept.eq(nest.o.valid & plan.free), plan.take.eq(accept)]
        m.d.sync += valids.eq(Cat(accept, valids))

        # stage 1: the item, the units of its group in earlier bundles, and all units of the group
        item = nest.o.payload
        bundle = Signal(range(bundles))
        with m.If(accept & item.last.operand):
            m.d.sync += bundle.eq(Mux(item.last.bundle, 0, bundle + 1))
        reads = [Signal(self.read_layout, name=f"read_{stage}", reset_less=True) for stage in range(1, 6)]
        total, before = Signal(range(config.columns // len(GATES) + 1)), Signal(range(config.columns // len(GATES) + 1))
        first = [Signal(name=f"first_{stage}", reset_less=True) for stage in (1, 2)]
        m.d.sync += [
            reads[0].of_cell.eq(item.last.operand),
            reads[0].address.eq(Mux(item.last.operand, item.address[1], item.address[0])),
            reads[0].step_last.eq(Cat(item.last[loop] for loop in ("group", "x", "bundle", "operand")).all()),
            reads[0].final.eq(item.last.block),
            reads[0].place.cell.eq(item.address[1]),
            reads[0].place.hidden.eq(item.address[2]),
            total.eq(Mux(item.last.group, instruction.last_units, config.columns // len(GATES))),
            before.eq(Array(number * units for number in range(bundles))[bundle]),
            Cat(first).eq(Cat(item.first.operand, first)),
            *(following.eq(read) for read, following in itertools.pairwise(reads)),
        ]

        # stage 2: units of this bundle: those of the group that earlier bundles leave
        count = Signal(range(units + 1))
        with m.If(total >= before + units):
            m.d.comb += count.eq(units)
        with m.Elif(total > before):
            m.d.comb += count.eq(total - before)
        m.d.sync += reads[1].place.units.eq(count)

        # stage 3: bytes that this read needs: of cell states, or of preactivations in the first read or the second
        needed = Signal(range(config.rows + 1), reset_less=True)
        sizes = (Array(min(max(8 * n - skipped, 0), config.rows) for n in range(units + 1)) for skipped in (0, config.rows))
        start, rest = (size[reads[1].place.units] for size in sizes)
        m.d.sync += needed.eq(Mux(reads[1].of_cell, reads[1].place.units << 1, Mux(first[1], start, rest)))

        # stage 4: address and end, or 0 for both if the read needs no bytes
        end = Signal(signed(ADDRESS_BITS + 1), reset_less=True)
        m.d.sync += end.eq(reads[2].address + needed)
        with m.If(needed == 0):
            m.d.sync += [end.eq(0), reads[3].address.eq(0)]

        # stage 5: whether they are outside the memory
        m.d.sync += [
            reads[4].outside.eq((reads[3].address < 0) | (end > config.activation_bytes)),
            reads[4].skipped.eq(reads[3].place.units == 0),
        ]

        m.d.comb += [plan.i.payload.eq(reads[4]), plan.i.valid.eq(valids[4])]
        return plan.o.payload, plan.o.valid, plan.o.ready

    def _build_answers(self, m: Module, reads: int) -> None:
        """Answers come in order: preactivations, then cell states."""
        config = self.config
        valid, answer = Signal(), Signal(8 * config.rows, reset_less=True)
        m.d.sync += [valid.eq(self.activations.data_valid), answer.eq(self.activations.data)]
        arrived, is_last = Signal(range(reads + 1)), Signal()  # preactivations of a bundle; all of them: the cell states are next
        held = [Signal(8 * config.rows, name=f"held_{index}", reset_less=True) for index in range(reads)]
        m.d.comb += [
            self.operand.preactivation.as_value().eq(Cat(held)),
            self.operand.cell.as_value().eq(answer),
            self.operand_valid.eq(valid & is_last),
        ]
        with m.If(valid):
            m.d.sync += [arrived.eq(Mux(is_last, 0, arrived + 1)), is_last.eq(arrived == reads - 1)]
            for index, value in enumerate(held):
                with m.If(arrived == index):
                    m.d.sync += value.eq(answer)
