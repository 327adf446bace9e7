"""`python -m edgecap`."""

from edgecap.cli import main

if __name__ == "__main__":
    main()
