"""Programs in numpy: the interpreter, the golden board behind the memory map, and its DMA engine."""
