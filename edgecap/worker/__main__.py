"""`python -m edgecap.worker`: the child process."""

from edgecap.worker.child import main

if __name__ == "__main__":
    main()
