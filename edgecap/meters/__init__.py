"""What is measured, one room a quantity. Meters see the seams (Engine, Counter, Clock) and nothing else.

divergence   how far a variant's predictions are from fp32's
compression  bits the corpus costs under the model
latency      seconds of load, prefill and decode, in rounds
energy       joules of prefill and decode, in windows as long as the counter needs
memory       resident set of a process that does nothing else
"""
