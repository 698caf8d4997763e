"""What a turn has cost: the rows of its requests come to what the program says, whatever of them the stream shows."""

import asyncio

import pytest

from gateway_svc.errors import EngineProtocolError, EngineRateLimited
from tests.engines_claude.stage import LIST_PRICE, Stage
from tests.support.claude_cli import (
    MODEL,
    api_error,
    assistant,
    event,
    init,
    message,
    requesting,
    result,
    spent,
    tool_result,
    tool_use,
    usage,
)

HAIKU = "claude-haiku-4-5"
READ = tool_use("toolu_1", "Read", {})


def costs(stage: Stage) -> list[int | None]:
    return [row.cost_micros if row.HasField("cost_micros") else None for row in stage.ledger.costs]


async def test_the_rows_come_to_the_program_s_sum(stage):
    """Each is priced by the list but the last, which takes the difference."""
    two = [*message("msg_1", "", [READ]), tool_result("toolu_1", "x"), *message("msg_2", "Done")]
    stage.play([init(), *two, result({MODEL: spent(2, 0.00108)})])
    await stage.run()
    assert costs(stage) == [LIST_PRICE, 1080 - LIST_PRICE]
    assert stage.totals.known_cost_micros == 1080
    assert stage.totals.to_usage().known_cost_micros == 1080
    assert [(row.input_tokens, row.output_tokens, row.cached_input_tokens) for row in stage.ledger.costs] == [
        (23, 23, 5)
    ] * 2
    assert {(row.session_id, row.turn_id, row.engine, row.model) for row in stage.ledger.costs} == {
        ("session-1", "turn-1", "claude", MODEL)
    }
    assert not any(row.usage_incomplete or row.HasField("error") for row in stage.ledger.costs)
    assert len({row.id for row in stage.ledger.costs}) == 2


async def test_a_message_of_many_lines_counts_once(stage):
    """Each of its blocks is a line that repeats its id and its first usage."""
    stage.play([init(), *message("msg_1", "text", [READ], thinking="hm"), result({MODEL: spent(1, 0.00054)})])
    await stage.run()
    assert len(stage.ledger.costs) == 1
    assert stage.totals.input_tokens == 23


async def test_a_running_total_is_not_counted_again_in_a_later_result(stage):
    """Programs of before tell with each result what the whole process has spent."""
    stage.play(
        [
            *(init(), *message("msg_1", "a"), result({MODEL: spent(1, 0.00054)})),
            *(init(), *message("msg_2", "b"), result({MODEL: spent(2, 0.00108)})),
        ]
    )
    await stage.run()
    assert costs(stage) == [540, 540]


async def test_a_resumed_session_s_earlier_spending_is_not_counted_again(stage):
    """Newer programs go on with the session's total, and tell besides what came since the last result."""
    total, since = {MODEL: spent(5, 0.0027)}, {MODEL: spent(1, 0.00054)}
    stage.play([init(), *message("msg_1", "a"), result(total, since=since)])
    await stage.run()
    assert costs(stage) == [540]


async def test_a_result_with_the_sum_alone_is_enough(stage):
    stage.play([init(), *message("msg_1", "a"), result(total_cost_usd=0.0123)])
    await stage.run()
    assert costs(stage) == [12300]
    assert stage.totals.input_tokens == 23


async def test_requests_that_the_stream_does_not_show_have_a_row_by_model(stage):
    """Subagents' and the program's own: what is left of tokens and money when the shown ones are taken off."""
    subagent = assistant({"type": "text", "text": "x"}, message_id="msg_s", parent="toolu_t", model=HAIKU)
    stage.play(
        [
            init(),
            *message("msg_1", "a"),
            subagent,
            result({MODEL: spent(1, 0.00054), HAIKU: spent(3, 0.0009, output=40)}),
        ]
    )
    await stage.run()
    rows = {row.model: row for row in stage.ledger.costs}
    assert (rows[MODEL].cost_micros, rows[HAIKU].cost_micros) == (540, 900)
    assert (rows[HAIKU].input_tokens, rows[HAIKU].output_tokens, rows[HAIKU].cached_input_tokens) == (69, 120, 15)
    assert stage.totals.known_cost_micros == 1440
    assert stage.totals.requests == 2


async def test_hidden_requests_of_the_same_model_are_told_from_the_shown_one(stage):
    stage.play([init(), *message("msg_1", "a"), result({MODEL: spent(3, 0.00162)})])
    await stage.run()
    assert set(costs(stage)) == {LIST_PRICE, 1620 - LIST_PRICE}
    assert (stage.totals.input_tokens, stage.totals.output_tokens) == (69, 69)


@pytest.mark.parametrize("name", [f"{MODEL}[1m]", "us.anthropic.opus-v1:0"])
async def test_a_provider_s_name_for_the_model_makes_no_second_count(stage, name):
    stage.play([init(), *message("msg_1", "a"), result({name: spent(1, 0.00054)})])
    await stage.run()
    assert costs(stage) == [540]


async def test_a_guessed_price_is_not_known(stage):
    stage.play([init(), *message("msg_1", "a", model="opus-x"), result({"opus-x": spent(1, 0.5, costBasis="unknown")})])
    await stage.run()
    assert costs(stage) == [None]
    assert stage.totals.unpriced_requests == 1


async def test_a_cancelled_request_keeps_what_it_has_taken(stage):
    """Interrupted, the program says what the broken-off request had cost by then."""
    stage.play(
        [init(), requesting(), *message("msg_1", "one two three")[:4], {"do": "wait"}],
        on_interrupt=[
            *message("msg_1", "", stop=None, output=1)[-2:],
            result(since={MODEL: spent(1, 0.00014, output=3)}, error=True),
        ],
    )
    turn = stage.turn()
    task = await stage.start(turn, stage.runner())
    await stage.first_event(turn)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (row,) = stage.ledger.costs
    assert (row.input_tokens, row.output_tokens, row.cost_micros) == (23, 3, 140)
    assert row.usage_incomplete
    assert row.error == "cancelled"


async def test_a_run_that_died_keeps_what_its_lines_told(stage):
    """No result, so no price for the request that was under way, nor for the subagent's."""
    subagent = assistant({"type": "text", "text": "x"}, message_id="msg_s", parent="toolu_t")
    first = [*message("msg_1", "", [READ]), tool_result("toolu_1", "x")]
    stage.play([init(), *first, subagent, *message("msg_2", "half")[:4], {"do": "exit", "code": 1}])
    with pytest.raises(EngineProtocolError, match="ended with code 1 in the middle"):
        await stage.run()
    whole, hidden, half = stage.ledger.costs
    assert (whole.cost_micros, whole.usage_incomplete, whole.HasField("error")) == (LIST_PRICE, False, False)
    assert (hidden.input_tokens, hidden.usage_incomplete, hidden.HasField("cost_micros")) == (23, True, False)
    assert (half.input_tokens, half.output_tokens, half.usage_incomplete) == (23, 1, True)
    assert half.error == "engine_broke_off"
    assert stage.totals.unpriced_requests == 2


async def test_a_run_that_died_while_tools_ran_has_lost_no_request(stage):
    stage.play([init(), *message("msg_1", "", [READ]), {"do": "kill"}])
    with pytest.raises(EngineProtocolError):
        await stage.run()
    assert costs(stage) == [LIST_PRICE]


async def test_a_failed_request_has_its_row_beside_those_that_were_paid(stage):
    said = "You've hit your limit"
    failed = [api_error("rate_limit", said), result({MODEL: spent(1, 0.00054)}, error=True, result=said)]
    stage.play([init(), *message("msg_1", "", [READ]), tool_result("toolu_1", "x"), *failed])
    with pytest.raises(EngineRateLimited):
        await stage.run()
    assert costs(stage) == [540, 0]
    assert stage.ledger.costs[1].error == "engine_rate_limited"


async def test_counts_that_make_no_sense_are_none(stage):
    odd = {"input_tokens": -5, "output_tokens": "many", "cache_read_input_tokens": 1e300}
    start = event("message_start", message={"id": "m", "model": MODEL, "usage": odd})
    stage.play(
        [init(), start, event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage(2, 0, 0, 3)), result({})]
    )
    await stage.run()
    (row,) = stage.ledger.costs
    assert (row.input_tokens, row.output_tokens) == (2, 3)
