"""The netlist check: the netlist that synthesis makes of an engine runs a model, and every answer must be right bit by
bit.

``systola netlist``. A board's inside, down to its UART's pins, is mapped to the cells of an FPGA family by Yosys; the
cells' simulation models (:mod:`systola_sim.cells`) go with it into Verilator, and the usual driver talks to the pins.
The answers must be the golden model's. With ``--fault`` one cell is changed, which the check must notice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from amaranth.back import rtlil
from rich.console import Console

from systola.device import Device
from systola.errors import SystolaError
from systola.transports.golden import GoldenTransport
from systola.transports.link import LinkTransport
from systola_boards.fpga.devices import DEVICES
from systola_boards.netlist.cells import Fault, faulty
from systola_boards.netlist.pipe import NetlistPipe
from systola_boards.toolchain.flow import synthesize
from systola_boards.toolchain.programs import SynthesisError, find_tool, run_cached
from systola_firmware.spec import presets as configurations
from systola_firmware.spec.config import Config
from systola_hdl.cells.families import Family, platform_of
from systola_hdl.tops.board import Systola
from systola_sim.cells import with_cell_models
from systola_sim.verilated.toolchain import ToolMissing
from systola_sim.verilated.verilator import BuildError, Progress, build_library

__all__ = ["FAMILIES", "CellNetlist", "app", "check", "check_config", "open_netlist", "synthesize_netlist"]

#: An FPGA of each family that has models of all its cells.
FAMILIES = {Family.ECP5: DEVICES["LFE5U-25F"], Family.ICE40: DEVICES["iCE40UP5K"]}

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL, IMAGES = EXAMPLES / "digits_cnn_int8.tflite", EXAMPLES / "digits_test.npz"

#: Clock cycles a bit of the line: the least that the board's UART can do, because simulated cycles take time.
DIVISOR = 4

# Bits that switch a fault on, of the wrapper's port `uart_divisor`, for which a board has no other use.
_FAULT_BITS = {Fault.LUT: 14, Fault.MULTIPLIER: 15}

# The board behind the ports of a simulated one; bytes come and go at the UART's pins only.
_WRAPPER = """
module systola (
    input clk, rst, rx_valid, tx_ready, uart_rx, select_uart,
    input [7:0] rx_data,
    input [15:0] uart_divisor,
    output rx_ready, tx_valid, uart_tx, busy,
    output [7:0] tx_data
);
    top netlist(.clk(clk), .rst(rst), .rx(uart_rx), .tx(uart_tx), .led_busy(busy), .led_activity());
    assign rx_ready = 0, tx_valid = 0, tx_data = 0;
endmodule
"""

# splitnets: signals of several bits look like combinational loops to Verilator. Short names of signals: a third of the
# time to compile.
_SCRIPT = "read_json top.json; splitnets; clean; rename -hide w:*; rename -enumerate; write_verilog -noattr netlist.v\n"


@dataclass(frozen=True)
class CellNetlist:
    """The Verilog text of a board's inside made of cells, module ``top``, and how many of each cell there are."""

    family: Family
    verilog: str
    cells: dict[str, int]


def check_config(preset: str) -> Config:
    """The configuration of a preset for the check: a quick line, and no LSTM cell. Raises ``ValueError`` for an unknown
    preset."""
    config = configurations.preset(preset)
    return config.replace(lstm=False, lstm_serial=False, uart_baud=config.clock_hz // DIVISOR)


def synthesize_netlist(config: Config, family: Family, folder: Path) -> CellNetlist:
    """The netlist of a board's inside, as for a bitstream; logs are left in ``folder``. Raises
    :class:`SynthesisError`."""
    yosys = find_tool("yosys")
    folder.mkdir(parents=True, exist_ok=True)
    text = rtlil.convert(Systola(config), name="top", emit_src=False, platform=platform_of(family))
    netlist = synthesize(FAMILIES[family], text, folder, yosys)
    inputs = {"top.json": netlist.json, "netlist.ys": _SCRIPT.encode()}
    made = run_cached(yosys, ["netlist.ys"], inputs, ["netlist.v"], keep_log=folder / "write.log")
    return CellNetlist(family, made["netlist.v"].decode(), netlist.cells)


def open_netlist(config: Config, netlist: CellNetlist, fault: Fault | None = None, progress: Progress | None = None) -> Device:
    """The netlist as a device, built by Verilator if it is not in the cache; ``fault`` changes one cell.

    All faults are in one library, switched off but for ``fault``. Raises :class:`~systola.errors.SystolaError` if the
    netlist does not answer, and as :func:`systola_sim.verilated.verilator.build_library`.
    """
    text = netlist.verilog
    for kind, bit in _FAULT_BITS.items():
        text = faulty(text, netlist.family, kind, f"systola.uart_divisor[{bit}]")
    text = with_cell_models(text + _WRAPPER, netlist.family)
    library = build_library(text, lambda: text, progress=progress, brief=True)
    divisor = DIVISOR | (1 << _FAULT_BITS[fault] if fault is not None else 0)
    pipe = NetlistPipe(config, divisor, library=library, host_bit_cycles=DIVISOR)
    return Device(LinkTransport(pipe, "the netlist", timeout=120.0, attempts=2))


@dataclass(frozen=True)
class Outcome:
    """Whether each answer was right, and the cycles of the last inference by the device's own counter, without the time
    on its serial line."""

    right: list[bool]
    cycles: int


def check(device: Device, config: Config, model: Path = MODEL, inputs: int = 3) -> Outcome:
    """Run ``inputs`` test images of a model and compare the answers with the golden model's. Raises as the driver
    does."""
    with np.load(IMAGES) as data:
        images = data["images"][:inputs]
    session = device.load(model)
    golden = Device(GoldenTransport(config)).load(model)
    images = images.reshape(len(images), *session.inputs[0].shape)
    right = [bool((np.asarray(session.run(image)) == np.asarray(golden.run(image))).all()) for image in images]
    return Outcome(right, session.counters["cycles"])


app = typer.Typer(add_completion=False)


@app.command()
def main(
    preset: Annotated[str, typer.Option(help="configuration")] = "tiny-4x4",
    family: Annotated[str, typer.Option(help=f"one of {', '.join(family.value for family in FAMILIES)}")] = Family.ECP5.value,
    inputs: Annotated[int, typer.Option(help="test images to run")] = 3,
    fault: Annotated[str, typer.Option(help=f"change one cell: {' or '.join(Fault)}")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")] = Path("build/netlist"),
) -> None:
    """Synthesise a preset, simulate its cells, and run the digits model on them through the UART's pins."""
    console = Console()
    start = time.monotonic()

    def tell(what: str, text: str) -> None:
        console.print(f"{what + ':':<9}{text} [{time.monotonic() - start:.0f} s]", highlight=False, markup=False, soft_wrap=True)

    try:
        config, kind = check_config(preset), Fault(fault) if fault else None
        if family not in (known.value for known in FAMILIES):
            raise ValueError(f"unknown family {family!r}: choose one of {', '.join(known.value for known in FAMILIES)}")
        netlist = synthesize_netlist(config, Family(family), output / f"{preset}-{family}")
        tell("cells", ", ".join(f"{count:,} {name}" for name, count in netlist.cells.items()))
        with open_netlist(config, netlist, kind, lambda stage: tell("build", stage)) as device:
            tell("device", f"{device.config.name}, known by its registers")
            outcome = check(device, config, inputs=inputs)
    except (ValueError, SynthesisError, ToolMissing, BuildError, SystolaError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    tell("model", f"{MODEL.name}, {outcome.cycles:,} cycles an inference")
    tell("answers", f"{sum(outcome.right)} of {len(outcome.right)} equal the golden model's in every element")
    raise typer.Exit(0 if all(outcome.right) else 1)
