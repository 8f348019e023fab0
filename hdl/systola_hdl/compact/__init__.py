"""The compact engine: what `systola_hdl.engine` does, in an FPGA of a few thousand logic cells with single-port memories."""
