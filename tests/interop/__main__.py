"""`python -m tests.interop`: get the peers of the interoperability tests ready."""

import sys

from tests.interop.build import PeerNotReadyError, build_all, model_path, say, server_path

try:
    build_all()
except PeerNotReadyError as error:
    sys.exit(str(error))
say(f"llama-server: {server_path()}\nmodel:        {model_path()}")
