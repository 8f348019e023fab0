"""The DMA engine: executes a ring of descriptors through any link that reaches the host's memory."""
