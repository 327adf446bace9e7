"""`edgecap sweep` as a process for tests: all of it is real but for the child that measures.

    python sweep_process.py SECONDS [ARGUMENT]...

Each measurement takes SECONDS; one with a context of BROKEN positions fails.
"""

import sys
import time

from fakes import corpus_of, scripted

from edgecap import cli
from edgecap.pipeline.worker import MeasureCell
from edgecap.record import Failure
from edgecap.sweep import runner

BROKEN = 13


def lasting(seconds):
    """A stand-in for `in_child` that takes its time."""

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell):
            time.sleep(seconds)
            if step.plan.context == BROKEN:
                return Failure(
                    stage="compression",
                    error="NotFinite",
                    message="NaN for a \x1b[31mtoken's\nprobability",
                )
        return scripted(corpus_of(step))(step, watch, timeout_s)

    return run


def main():
    runner.LocalBackend.__init__.__defaults__ = (
        lasting(float(sys.argv.pop(1))),
        *runner.LocalBackend.__init__.__defaults__[1:],
    )
    sys.argv[0] = "edgecap"
    cli.main()


if __name__ == "__main__":
    main()
