"""In the guest: the user's own path, ``systola.open("pcie:…")``, with a compiled model; every answer compared with the
oracle's."""

from pathlib import Path

import numpy as np

import systola
from systola.errors import LinkError
from systola.transports.pcie.listed import find_functions
from systola.transports.pcie.system import System
from systola_firmware.spec.pcie import DEVICE_ID, VENDOR_ID


def check(what: str, fact: bool) -> None:
    print(f"{'PASS' if fact else 'FAIL'} {what}", flush=True)
    if not fact:
        raise SystemExit(what)


def main() -> None:
    (listed,) = [listed for listed in find_functions(System()) if listed.identity == (VENDOR_ID, DEVICE_ID)]
    Path("/proc/sys/vm/nr_hugepages").write_text("4")
    data = np.load("/guest/data.npz")
    with systola.open(f"pcie:{listed.name}") as device:
        check("the device is what it should be", device.config.name == str(data["preset"]))
        session = device.load("/guest/model.systola", verify=True)
        check("all memories hold what was written", True)
        check("one inference", bool((session.run(data["x"][0]) == data["y"][0]).all()))
        print("COUNTERS", session.counters, flush=True)
        check("all inferences, several in flight", bool((session.run(data["x"]) == data["y"]).all()))
        try:
            systola.open(f"pcie:{listed.name}")
        except LinkError as error:
            check("a second one is refused", "is in use by another program" in str(error))
    with systola.open(f"pcie:{listed.name}") as device:
        answers = device.load("/guest/model.systola").run(data["x"])
        check("again, after it was closed", bool((answers == data["y"]).all()))


main()
