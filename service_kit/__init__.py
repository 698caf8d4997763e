"""What both services need to be gRPC servers."""

import os

# gRPC's core writes to stderr by itself, such as a line for each TLS handshake that a stranger spoils, and hangs where
# stderr stands still. It reads this once, when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
