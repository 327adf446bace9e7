"""Entry of the child process: `python -m edgecap.pipeline.worker`."""

from edgecap.pipeline.worker.child import main

if __name__ == "__main__":
    main()
