"""The garbage collector of a service whose work is many short-lived objects."""

import gc


def tune_collector() -> None:
    """Looks for cycles seldom, and not among what is there by now. Call it once all is loaded.

    Rows and their batches are without cycles, which are looked for at every 700 new objects by default. Those that
    there are go within half a minute: see service_kit.freed_memory.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
