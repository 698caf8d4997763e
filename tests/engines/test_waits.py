"""A server that says how long it wants to be left alone is left alone for as long."""

import json
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.wire.failures import error_in_body
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import EngineError, EngineUnavailable
from tests.engines.asking import ask, events, raw_server, response

DONE = events({"choices": [{"index": 0, "delta": {"content": "done"}, "finish_reason": "stop"}]})
PATIENCE = Patience(attempts=3, wait_s=0.0001, max_retry_after_s=0.05, loading_s=30)


def refused(status: str, error: object, header: str = "") -> bytes:
    return response(json.dumps(error), "application/json" + (f"\r\n{header}" if header else ""), status)


async def waits(*responses: bytes, patience: Patience = PATIENCE) -> tuple[list[float], int, EngineError | None]:
    """The waits between the requests of one step, how many requests there were, and the error."""
    with capture_logs() as logs:
        error = None
        async with raw_server(*responses) as server:
            try:
                await ask(OpenAIEngine(f"{server.url}/v1", "m", patience=patience), model="m")
            except EngineError as raised:
                error = raised
    waited = [log["wait_s"] for log in logs if log["event"] == "engine.trying_again"]
    return waited, len(server.bodies), error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"error": {"message": "Rate limit reached. Please try again in 20ms.", "type": "tokens"}}, 0.02),
        ({"error": {"message": "Too many requests, retry after 0.02 seconds"}}, 0.02),
        ([{"error": {"code": 429, "details": [{"@type": "RetryInfo", "retryDelay": "0.02s"}]}}], 0.02),
        ({"error": {"message": "slow", "metadata": {}, "retry_after": 0.02}}, 0.02),
    ],
)
async def test_a_wait_that_the_body_tells_is_kept(error, seconds):
    waited, requests, failed = await waits(refused("429 X", error), DONE)
    assert (requests, failed) == (2, None)
    assert waited == [pytest.approx(seconds * 1.05, abs=seconds * 0.06)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 6m0s.", 360),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("try again in 2 minutes", 120),
        ("wait 250 milliseconds", 0.25),
        ("the limit of 60 s was reached", None),
    ],
)
def test_a_wait_is_read_in_whatever_units_it_is_told(text, seconds):
    assert error_in_body(json.dumps({"error": {"message": text}}).encode(), "").after_s == seconds


async def test_a_server_that_loads_its_model_is_asked_until_it_has():
    waited, requests, failed = await waits(*[refused("503 X", {"error": {"message": "Loading model"}})] * 6, DONE)
    assert (len(waited), requests, failed) == (6, 7, None)


async def test_a_server_that_says_how_long_it_loads_is_waited_for_beyond_the_usual_limit():
    loading = refused("503 X", {"error": "Model m is currently loading", "estimated_time": 0.2})
    waited, requests, failed = await waits(loading, DONE)
    assert (requests, failed) == (2, None)
    assert waited[0] >= 0.2 > PATIENCE.max_retry_after_s


@pytest.mark.parametrize(
    ("status", "error", "patience"),
    [
        ("500 X", {"error": "error loading model: unknown architecture"}, PATIENCE),
        ("503 X", {"error": {"message": "Loading model"}}, Patience(attempts=3, wait_s=0.0001, loading_s=0)),
        ("503 X", {"error": {"message": "overloaded"}}, PATIENCE),
    ],
)
async def test_what_does_not_load_or_loads_for_too_long_is_asked_as_often_as_any(status, error, patience):
    _, requests, failed = await waits(refused(status, error), patience=patience)
    assert requests == 3
    assert isinstance(failed, EngineUnavailable)


ABSURD = ["Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "9" * 400, "inf", "Fri, 31 Dec 9999 23:59:59 -2359", "-1"]


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
async def test_an_absurd_wait_is_no_defect_of_ours(name, value):
    _, requests, failed = await waits(refused("503 X", {"error": {"message": "away"}}, f"{name}: {value}"))
    assert isinstance(failed, EngineUnavailable)
    assert requests in {1, 3}


def keyed(key: str, words: Sequence[str]) -> OpenAIEngine:
    return OpenAIEngine(words[0], "m", api_key=key, patience=Patience(attempts=1))


@pytest.mark.parametrize(
    ("key", "said", "told"),
    [
        ("the", "there is the key: the", "there is *** key: ***"),
        ("sk-12", "bad key sk-12, task-123 sk-123", "bad key ***, task-123 sk-123"),
        ("sk-0123456789abcdef", "key xsk-0123456789abcdefx", "key x***x"),
        ("a", "a model has a name", "*** model has *** name"),
    ],
)
async def test_a_short_key_is_never_masked_inside_words(key, said, told):
    async with raw_server(refused("400 X", {"error": {"message": said}})) as server:
        with pytest.raises(EngineError) as caught:
            await ask(keyed(key, [f"{server.url}/v1"]), model="m")
    assert caught.value.reason.endswith(told)
