"""What is measured, one room a quantity. Meters see the seams (Engine, Counter, Clock) and nothing else.

divergence   how far a variant's predictions are from fp32's
compression  bits the corpus costs under the model
latency      seconds of load, prefill and decode, in rounds
growth       seconds of prefill and decode at several contexts
energy       joules of prefill, decode and scoring, in windows as long as the counter needs: `taking` marks
             them, `readings` watches the counter
watts        what a counter shows while idle and under load
peaks        the fastest that a provider multiplies and reads
memory       resident set of a process that does nothing else
"""
