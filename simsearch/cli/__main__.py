"""The command line by `python -m simsearch.cli`."""

import sys

from simsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
