"""`python -m api` serves; `python -m api migrate` brings the database up to date and exits."""

import signal
import sys

if __name__ == "__main__":
    # As long as there is nothing to clean up, Ctrl-C just ends the process and tells nobody how far the imports were.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from api.commands import main

    sys.exit(main(sys.argv[1:]))
