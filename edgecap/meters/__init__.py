"""Measure one quantity per module, through the protocols Engine, Counter and Clock alone.

compression       bits of a corpus under a model
text_windows      documents cut into windows, by protocol
sharding          one corpus scored in parts
latency           seconds of load, prefill and decode, in rounds
context_sweep     seconds of prefill and decode at several contexts
throughput        tokens per second of batches and streams
overhead          seconds of the decode loop without a model
energy            joules of prefill, decode and scoring
energy_windows    windows of work, as long as the counter needs
counter_readings  the counter, read at both ends of a window
counter_check     watts while idle and under load
memory            resident set of a process that does nothing else
peaks             fastest matrix products and memory reads of a provider
divergence        distance of a variant's predictions from fp32
exact/            probability of a text over all its tokenizations
"""
