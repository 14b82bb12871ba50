"""`python -m terminal` talks to a running Colloquy."""

import signal
import sys

if __name__ == "__main__":
    # Until there is a conversation, Ctrl-C just ends the process and tells nobody how far the imports were.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from terminal.command import main

    sys.exit(main(sys.argv[1:]))
