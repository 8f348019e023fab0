"""Between the hard blocks of FPGA families and one stream of raw TLPs each way."""
