"""What a caller is told when Claude's program fails: which kind of error, and what to do about it."""

from typing import Any

import pytest

from gateway_svc import errors
from tests.engines_claude.stage import Stage
from tests.support.claude_cli import MODEL, api_error, init, message, result, spent


async def failed(stage: Stage, kind: type[errors.GatewayError], match: str, **options: Any) -> errors.GatewayError:
    with pytest.raises(kind, match=match) as caught:
        await stage.run(**options)
    assert "claude" in str(caught.value)
    assert len(stage.ledger.costs) >= 1
    return caught.value


async def test_not_installed(stage):
    runner = stage.runner(command="claude-that-is-not-there --flag")
    await failed(
        stage, errors.EngineNotConfigured, "not found.*Install Claude Code.*GATEWAY_CLAUDE_COMMAND", runner=runner
    )
    (row,) = stage.ledger.costs
    assert (row.cost_micros, row.input_tokens) == (0, 0)
    assert row.error == "engine_not_configured"


async def test_not_executable(stage):
    runner = stage.runner(command=str(stage.folder))
    await failed(stage, errors.EngineNotConfigured, "Permission denied", runner=runner)


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "said", "status", "kind", "match"),
    [
        ("authentication_failed", "Not logged in · Please run /login", None, errors.EngineRejected, "not logged in"),
        ("billing_error", "Credit balance is too low", 400, errors.EngineRejected, "HTTP 400 Credit balance"),
        ("invalid_request", "Prompt is too long", 400, errors.EngineRejected, "Prompt is too long"),
        ("model_not_found", "There's an issue with the selected model", 404, errors.ModelNotFound, "selected model"),
        ("rate_limit", "You've hit your limit · resets 2pm", 429, errors.EngineRateLimited, "HTTP 429"),
        ("overloaded", "Overloaded", 529, errors.EngineUnavailable, "HTTP 529"),
        ("server_error", "API Error: 500", 500, errors.EngineUnavailable, "HTTP 500"),
        ("unknown", "API Error: Connection error.", None, errors.EngineProtocolError, "Connection error"),
        ("", "Invalid API key · Please run /login", None, errors.EngineRejected, "not logged in.*ANTHROPIC_API_KEY"),
        ("", "Claude AI usage limit reached|1754", None, errors.EngineRateLimited, "usage limit reached"),
        ("", "API Error: 529 overloaded", 529, errors.EngineUnavailable, "HTTP 529"),
    ],
)
async def test_a_failed_request_by_what_the_program_calls_it(stage, code, said, status, kind, match):
    """Programs of before had no code for it, only words."""
    lines = [api_error(code, said)] if code else []
    stage.play([init(), *lines, result({}, error=True, result=said, api_error_status=status)], exit=1)
    await failed(stage, kind, match)
    assert stage.text() == ""


async def test_the_output_limit_is_a_stop_reason_and_no_error(stage):
    stage.play([init(), *message("msg_1", "x"), api_error("max_output_tokens", "exceeded"), result({}, error=True)])
    assert await stage.run() == "STOP_REASON_MAX_OUTPUT_TOKENS"


async def test_a_failure_that_the_program_overcame_is_none(stage):
    lines = [api_error("max_output_tokens", "exceeded"), *message("msg_1", "x"), result({MODEL: spent(1, 0.1)})]
    stage.play([init(), *lines])
    assert await stage.run() == "STOP_REASON_COMPLETED"


@pytest.mark.long
async def test_a_key_that_is_refused_is_told_before_the_program_gives_up(stage):
    """It would try for minutes."""
    retry = {"type": "system", "subtype": "api_retry", "error": "authentication_failed", "error_status": 401}
    stage.play([init(), *({**retry, "attempt": attempt} for attempt in (1, 2, 3)), {"do": "sleep", "seconds": 60}])
    await failed(stage, errors.EngineRejected, "HTTP 401 not logged in")


@pytest.mark.parametrize(
    ("stderr", "kind", "match"),
    [
        (
            "error: unknown option '--include-partial-messages'\n",
            errors.EngineRejected,
            "option --include-partial-mess",
        ),
        ("--dangerously-skip-permissions cannot be used with root/sudo", errors.EngineRejected, "as another user"),
        ("Invalid API key · Please run /login", errors.EngineRejected, "not logged in"),
        ("something with a secret in it", errors.EngineProtocolError, "ended with code 1 before it said anything"),
    ],
)
async def test_a_program_that_ends_at_once(stage, stderr, kind, match):
    """Of what it writes to stderr nothing but an option's name is told."""
    stage.play([{"do": "stderr", "text": stderr}, {"do": "exit", "code": 1}], unprompted=True)
    error = await failed(stage, kind, match)
    assert "secret" not in str(error)


async def test_a_program_that_is_not_claude_s(stage):
    stage.play([{"do": "raw", "text": "usage: tidy [file]"}, {"do": "exit", "code": 0}])
    await failed(
        stage, errors.EngineProtocolError, "1 lines that are not its JSON: is GATEWAY_CLAUDE_COMMAND Claude Code"
    )


@pytest.mark.parametrize(
    ("end", "match"),
    [({"do": "exit", "code": 0}, "ended with code 0"), ({"do": "kill"}, "ended by signal 9")],
)
async def test_a_death_in_the_middle_keeps_what_was_said(stage, end, match):
    stage.play([init(), *message("msg_1", "half of it")[:-4], end])
    await failed(stage, errors.EngineProtocolError, f"{match} in the middle")
    assert stage.text() == "half of it"


async def test_a_death_behind_a_first_result_is_one_in_the_middle(stage):
    stage.play([init(), result({}), init(), *message("msg_2", "more")[:-4], {"do": "exit", "code": 2}])
    await failed(stage, errors.EngineProtocolError, "code 2 in the middle")
