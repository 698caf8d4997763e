"""What other people's model servers send is taken for what it is: no wrong row, no wrong bill, no dead session."""

import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from google.rpc import status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines import Engine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import (
    CallNotParsed,
    EngineBrokeOff,
    EngineError,
    EngineProtocolError,
    EngineRejected,
    GatewayError,
)
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.servicer import status_of
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.tools.write import WriteTool
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from service_kit.pricing import cost_micros
from tests.engines.stranger import CHECKS, FILES, Reply, Stranger, load_case, refusal, stranger
from tests.gateway_svc.house import Logger
from tests.support.conversations import open_sessions

QUICK = Patience(attempts=4, wait_s=0.001, max_retry_after_s=0.5)


@dataclass
class Played:
    """What came of a case."""

    server: Stranger
    logger: Logger
    workspace: Path
    turns: list[list[pb.TurnEvent] | GatewayError] = field(default_factory=list)

    @property
    def last(self) -> list[pb.TurnEvent]:
        last = self.turns[-1]
        assert not isinstance(last, GatewayError), last
        return last

    @property
    def text(self) -> str:
        return "".join(event.text_delta.text for event in self.last)

    @property
    def stop(self) -> str:
        return pb.StopReason.Name(self.last[-1].turn_finished.stop_reason).removeprefix("STOP_REASON_")

    @property
    def rows(self) -> list[tuple[str, str]]:
        rows = [row for row in self.logger.rows if isinstance(row, audit_pb2.AuditRow)]
        return [(row.tool_name, common_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_")) for row in rows]

    @property
    def costs(self) -> list[audit_pb2.CostRow]:
        return [row for row in self.logger.rows if isinstance(row, audit_pb2.CostRow)]


async def play(folder: Path, name: str, replies: list[Reply] | None = None, check: str = "") -> Played:
    """Plays a file, or replies with the options of the file `name`."""
    case = load_case(FILES / name)
    options = case.options
    async with AsyncExitStack() as stack:
        told = replies or case.replies
        server = await stack.enter_async_context(stranger(*told, check=CHECKS[check or options.get("check", "")]))
        engines: list[Engine] = [
            OllamaEngine(server.url, "m", patience=QUICK),
            (ResponsesEngine if options.get("api") == "responses" else OpenAIEngine)(server.url, "m", patience=QUICK),
        ]
        workspace, logger = folder / "workspace", Logger()
        workspace.mkdir()
        (workspace / "a.txt").write_text("hello\n")
        toolbox = Toolbox([ReadTool(), WriteTool(), BashTool(None)])
        context = int(options["ctx"]) if "ctx" in options else None
        agents = {
            engine.name: Agent(
                engine,
                toolbox,
                Files(workspace),
                logger,
                price=partial(cost_micros, server.url, None, local=engine.name == "ollama"),
                context_tokens=lambda _: context,
                cuts_silently=engine.name == "ollama",
                answers=Answers(1),
                limits=Limits(),
            )
            for engine in engines
        }
        errors: list[BaseException] = []

        def keep_error(error: BaseException) -> status_pb2.Status:
            errors.append(error)
            return status_of(error)

        turns = Turns(open_sessions(folder), agents, "openai", lambda state: None, keep_error, Requests(folder))
        played = Played(server, logger, workspace)
        session_id, chosen = "", options.get("engine", "openai").split(",")
        for number in range(int(options.get("turns") or 1)):
            request = pb.RunTurnRequest(
                input="go",
                engine=chosen[min(number, len(chosen) - 1)],
                model=options.get("model") or "",
                max_steps=int(options["max_steps"]) if options.get("max_steps") else None,
            )
            if session_id:
                request.session_id = session_id
            events = [event async for event in turns.run(request)]
            error = errors.pop() if errors else None
            assert error is None or isinstance(error, GatewayError)
            played.turns.append(error or events)
            session_id = events[0].turn_accepted.session_id
        await turns.cancel_all()
        for agent in agents.values():
            await agent.aclose()
    return played


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "kind", "match", "requests"),
    [
        ("01-unknown-finish-reason.sse", EngineBrokeOff, "for the reason insufficient_system_resource", 1),
        ("02-error-in-choice.sse", EngineBrokeOff, "status 502 and says: Provider disconnected", 1),
        ("15-html-200.html", EngineProtocolError, "a page instead of an answer: look at GATEWAY_OPENAI_URL", 1),
        ("20-gemini-error-list.json", EngineRejected, "HTTP 400 and says: API key expired", 1),
        ("21-mistral-422.json", EngineRejected, "body.stream_options: Extra inputs are not permitted", 2),
        ("23-openrouter-raw-reason.json", EngineRejected, "Provider returned error; the message at position 3", 1),
    ],
)
async def test_a_failed_answer_is_an_error_with_its_reason(tmp_path, name, kind, match, requests):
    played = await play(tmp_path, name)
    (error,) = played.turns
    assert type(error) is kind
    assert re.search(match, str(error))
    assert isinstance(error, EngineError)
    assert len(error.reason) < 600
    assert len(played.server.requests) == requests


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "text", "rows", "requests"),
    [
        ("04-done-alone.sse", "done", [], 2),
        ("05-length-cuts-call.sse", "done", [("unknown", "INVALID_CALL")], 2),
        ("08-new-id-each-fragment.sse", "done", [("read", "SUCCEEDED")], 2),
        ("10-empty-data-line.sse", "hi", [], 1),
        ("12-cut-before-anything.sse", "done", [], 2),
        ("14-json-error-under-event-stream.sse", "done", [], 2),
        ("17-integer-id.sse", "done", [("read", "SUCCEEDED")], 2),
        ("24-tool-use-failed.json", "done", [("read", "SUCCEEDED")], 3),
        ("36-stream-options-refused.txt", "done", [], 2),
        ("51-responses-call-only-added.sse", "done", [("read", "SUCCEEDED")], 2),
        ("53-responses-message-at-the-end.sse", "the answer", [], 1),
        ("54-responses-cut-call.sse", "done", [("bash", "INVALID_CALL")], 2),
        ("100-one-call-at-three-indexes.sse", "done", [("bash", "SUCCEEDED")], 2),
        ("101-arguments-so-far.sse", "done", [("read", "SUCCEEDED")], 2),
    ],
)
async def test_an_answer_is_taken_for_what_it_says(tmp_path, name, text, rows, requests):
    played = await play(tmp_path, name)
    assert (played.text, played.stop, played.rows) == (text, "COMPLETED", rows)
    assert len(played.server.requests) == requests
    assert not (played.workspace / "r5.txt").exists()


async def test_arguments_that_are_cut_again_end_the_turn_instead_of_costing_every_step(tmp_path):
    played = await play(tmp_path, "06-length-cuts-arguments.sse")
    assert played.stop == "MAX_OUTPUT_TOKENS"
    assert played.rows == [("write", "INVALID_CALL")] * 2
    assert not (played.workspace / "b.txt").exists()
    told = [message["content"] for message in played.server.requests[1]["messages"] if message["role"] == "tool"]
    assert "limit of output tokens cut your answer" in told[0]


async def test_a_server_s_words_are_told_to_the_caller_and_to_no_row(tmp_path):
    played = await play(tmp_path, "25-error-quotes-content.json")
    (error,) = played.turns
    assert "SENTINEL-of-a-diary" in str(error)
    assert "SENTINEL" not in str(played.logger.rows)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "turns", "refused"),
    [
        ("30-gemini-thought-signature.sse", 2, 0),
        ("32-empty-answer-in-history.sse", 3, 0),
        ("33-ids-of-another-server.txt", 2, 0),
        ("34-no-thoughts-from-another-engine.txt", 2, 1),
        ("37-context-refused.txt", 3, None),
        ("50-responses-bare-thought.sse", 2, 0),
    ],
)
async def test_a_session_lives_on(tmp_path, name, turns, refused):
    played = await play(tmp_path, name)
    assert len(played.turns) == turns
    assert [turn for turn in played.turns if isinstance(turn, GatewayError)] == []
    assert played.text == "done" or name.startswith(("33", "34"))
    assert refused is None or played.server.refused == refused


@pytest.mark.parametrize(
    ("name", "counted", "micros"),
    [
        ("40-usage-xai.sse", (1000, 2100, 0, 2000), 34_500),
        ("42-usage-zeros.sse", (0, 0, 0, 0), None),
        ("43-usage-empty.sse", (0, 0, 0, 0), None),
        ("45-usage-then-zeros.sse", (1000, 100, 0, 0), 3_500),
        ("46-usage-in-the-choice.sse", (1000, 100, 900, 0), 445),
    ],
)
async def test_a_bill_is_right_or_unset_and_never_0(tmp_path, name, counted, micros):
    (cost,) = (await play(tmp_path, name)).costs
    tokens = (cost.input_tokens, cost.output_tokens, cost.cached_input_tokens, cost.reasoning_tokens)
    assert tokens == counted
    assert cost.usage_incomplete is (micros is None)
    assert cost.HasField("cost_micros") is (micros is not None)
    assert micros is None or cost.cost_micros == micros


def replies_of(name: str) -> list[Reply]:
    """The events that a file tells in words."""
    body = (FILES / name).read_text()
    return [Reply(body[body.index("data:") :].encode())]


DONE = Reply(
    b'data: {"choices": [{"index": 0, "delta": {"content": "done"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)
RESPONSE_DONE = Reply(
    b'data: {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "id": "m1", '
    b'"content": [{"type": "output_text", "text": "done"}]}}\n\n'
    b'data: {"type": "response.completed", "response": {"status": "completed"}}\n\n'
)


async def test_ids_are_unique_within_each_request(tmp_path):
    again = replies_of("94-id-again-in-the-next-step.sse")
    played = await play(tmp_path, "01-unknown-finish-reason.sse", [*again, *again, DONE], check="unique_ids")
    assert (played.text, played.rows) == ("done", [("read", "SUCCEEDED")] * 2)
    assert played.server.refused == 0
    first = [message for message in played.server.requests[1]["messages"] if message["role"] == "tool"]
    assert first[0]["tool_call_id"] == "functions.read:0", "a server's own id goes back to it"


async def test_only_fields_of_the_api_s_own_go_back(tmp_path):
    replies = [*replies_of("99c-responses-foreign-fields.sse"), RESPONSE_DONE]
    played = await play(tmp_path, "50-responses-bare-thought.sse", replies)
    assert (played.text, played.server.refused) == ("done", 0)
    assert [item["type"] for item in played.server.requests[1]["input"]] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ], "the thought goes back"


async def test_a_result_that_a_content_filter_refuses_ends_its_turn_and_not_its_session(tmp_path):
    call = Reply(
        b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": '
        b'"read", "arguments": "{\\"path\\": \\"a.txt\\"}"}}]}, "finish_reason": "tool_calls"}]}\n\ndata: [DONE]\n\n'
    )
    filtered = Reply((FILES / "97-content-filter-in-history.json").read_bytes(), 400, "application/json")
    filtered = Reply(filtered.body[filtered.body.index(b"{") :], 400, "application/json")
    played = await play(tmp_path, "30-gemini-thought-signature.sse", [call, filtered, DONE], check="leak")
    first, second = played.turns
    assert isinstance(first, list)
    assert first[-1].turn_finished.stop_reason == pb.STOP_REASON_CONTENT_FILTER
    assert played.text == "done"
    assert isinstance(second, list)
    assert "hello" not in json.dumps(played.server.requests[-1]["messages"]), "what was refused is not sent again"


async def test_a_refusal_teaches_nothing_that_is_not_known(tmp_path):
    """A server that refuses all is not asked for ever."""
    played = await play(
        tmp_path, "36-stream-options-refused.txt", [refusal("stream_options reasoning_content missing")]
    )
    assert isinstance(played.turns[0], EngineRejected)
    assert len(played.server.requests) <= 4


UNPARSED = Reply(
    b'{"error": {"message": "Failed to parse tool call arguments as JSON: SENTINEL"}}', 500, "application/json"
)


async def test_a_model_is_told_of_a_call_that_could_not_be_parsed_and_goes_on(tmp_path):
    asked = [UNPARSED] * QUICK.attempts
    played = await play(tmp_path, "01-unknown-finish-reason.sse", [*asked, DONE])
    assert (played.text, played.stop, len(played.server.requests)) == ("done", "COMPLETED", QUICK.attempts + 1)
    before, last = played.server.requests[0]["messages"], played.server.requests[-1]["messages"]
    assert [message["role"] for message in last[len(before) :]] == ["assistant", "user"]
    assert "could not be parsed" in last[-1]["content"]
    assert "SENTINEL" not in json.dumps(last)


@pytest.mark.parametrize(
    "reasons",
    [
        '"MALFORMED_FUNCTION_CALL"',
        '"function_call_filter: MALFORMED_FUNCTION_CALL"',
        '"error", "native_finish_reason": "UNEXPECTED_TOOL_CALL"',
    ],
)
async def test_a_model_is_told_of_a_call_that_its_end_calls_malformed(tmp_path, reasons):
    """Gemini's, in its own words, in those of its endpoint like OpenAI's, and in OpenRouter's."""
    malformed = Reply(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": %b}]}\n\n' % reasons.encode())
    played = await play(tmp_path, "01-unknown-finish-reason.sse", [*[malformed] * QUICK.attempts, DONE])
    assert (played.text, played.stop, len(played.server.requests)) == ("done", "COMPLETED", QUICK.attempts + 1)
    assert "could not be parsed" in played.server.requests[-1]["messages"][-1]["content"]


async def test_a_call_that_can_never_be_parsed_ends_its_turn_and_is_not_asked_for_ever(tmp_path):
    played = await play(tmp_path, "01-unknown-finish-reason.sse", [UNPARSED])
    (error,) = played.turns
    assert isinstance(error, CallNotParsed)
    assert len(played.server.requests) == 2 * QUICK.attempts
    assert all("call_not_parsed" in cost.error for cost in played.costs)


async def test_a_refusal_for_the_length_is_met_once_and_not_in_each_later_turn(tmp_path):
    played = await play(tmp_path, "37-context-refused.txt")
    assert played.server.refused <= 1
