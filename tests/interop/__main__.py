"""`python -m tests.interop`: get the peers of the interoperability tests ready."""

import sys

from tests.interop.build import PeerNotReadyError, build_all, model_path, server_path

try:
    build_all()
except PeerNotReadyError as error:
    sys.exit(str(error))
print(f"llama-server: {server_path()}\nmodel:        {model_path()}")
