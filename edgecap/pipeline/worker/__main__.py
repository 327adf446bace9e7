"""`python -m edgecap.worker`: the child process."""

from edgecap.pipeline.worker.child import main

if __name__ == "__main__":
    main()
