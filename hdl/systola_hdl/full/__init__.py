"""The engine of pipelines that never stop.

engine      everything behind the host's bus, put together
control     the sequencer: fetch, decode, issue, tokens
memory      activation memory and weight memory
matmul      the MATMUL unit: weight loader, streamer, array, accumulators
post        the POST unit: drain, vector, output stage; its LSTM path and cell in lstm
interfaces  signatures through which these meet
"""
