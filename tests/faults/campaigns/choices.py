"""What campaigns choose from."""

from tests.faults.proxy import Behaviour

LEFT_BYTES = 64 * 2**10
BEHAVIOURS: list[Behaviour] = ["pass", "delay", "drop_acks", "refuse"]
