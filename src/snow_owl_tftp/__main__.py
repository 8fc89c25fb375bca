"""`python -m snow_owl_tftp`: the command line, for where its script is not on the PATH.

May know: the command line and nothing else. Must not: hold options or logic of its own.
"""

import sys

from snow_owl_tftp.cli import main

if __name__ == "__main__":
    sys.exit(main())
