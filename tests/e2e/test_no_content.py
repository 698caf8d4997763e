"""R12: what a tool reads, prints or fetches is nowhere but in the session's own transcript."""

import asyncio
import re
import secrets
from contextlib import suppress
from pathlib import Path

import pytest

from demo.script import Call, Page, Script, Step
from tests.e2e.conftest import run_turn, text_of
from tests.support.collector import collecting
from tests.support.conversations import conversation_name
from tests.support.scrapes import scrape


def files_with(folder: Path, sentinel: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if sentinel.encode() in content_of(path))


def content_of(path: Path) -> bytes:
    """Nothing where there is no file any more: services that run remove some."""
    with suppress(FileNotFoundError):
        return path.read_bytes() if path.is_file() else b""
    return b""


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "api"), [("ollama", "chat"), ("openai", "chat"), ("openai", "responses"), ("anthropic", "chat")]
)
async def test_a_sentinel_in_every_place_of_content_is_not_on_the_record(make_pair, engine, api):
    """Each tool handles the sentinel; the spool is looked at while the audit service is down, and all else after."""
    sentinel = f"Sentinel{secrets.token_hex(8)}"
    password = f"Pw{secrets.token_hex(8)}"
    pair = await make_pair(Script())
    base = pair.model.url
    calls = (
        Call(name="read", arguments={"path": "secret.txt"}),
        Call(name="bash", arguments={"command": "cat secret.txt; cat secret.txt >&2; exit 4"}),
        Call(name="bash", arguments={"command": f"cat > out.txt <<'END'\n{sentinel}\nEND"}),
        Call(name="bash", arguments={"command": f"PGPASSWORD={password} true --password {password}"}),
        Call(name="grep", arguments={"pattern": "Sentinel", "path": "."}),
        Call(name="glob", arguments={"pattern": "*.txt"}),
        Call(name="write", arguments={"path": "new.txt", "content": f"a {sentinel} b"}),
        Call(name="edit", arguments={"path": "edit.txt", "old_string": sentinel, "new_string": f"{sentinel}2"}),
        Call(name="edit", arguments={"path": "edit.txt", "old_string": f"not there {sentinel}", "new_string": "x"}),
        Call(name="webfetch", arguments={"url": f"{base}/pages/secret.html"}),
        Call(name="webfetch", arguments={"url": f"{base}/pages/none?token={password}"}),
        Call(name="unheard_of", arguments={"content": sentinel, "key": password}),
        Call(name="read", arguments={"path": ["wrong", sentinel]}),
    )
    page = Page(body=f"<h1>{sentinel}</h1>", headers={"x-note": sentinel})
    pair.model.script = Script(
        steps=(Step(text=f"I say {sentinel}. ", thinking=f"Hm, {sentinel}", tool_calls=calls), Step(text="Done.")),
        pages={"/pages/secret.html": page},
    )
    (pair.workspace / "secret.txt").write_text(f"{sentinel}\n")
    (pair.workspace / "edit.txt").write_text(f"{sentinel}\n")
    audit = pair.start_audit(AUDIT_LOG_LEVEL="debug")
    audit.terminate()
    async with collecting() as collector:
        service = pair.start_gateway(
            GATEWAY_LOG_LEVEL="debug",
            GATEWAY_OPENAI_API=api,
            GATEWAY_METRICS_LISTEN="127.0.0.1:0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}",
            OTEL_BSP_SCHEDULE_DELAY="50",
        )
        events = await run_turn(await pair.gateway(service), engine=engine, input=f"Look for {sentinel}")
        async with asyncio.timeout(30):
            while not any(span.name == "invoke_agent" for span in collector.spans):
                await asyncio.sleep(0.02)
    assert text_of(events).endswith("Done.")

    sent = pair.model.requests[-1].json
    told = [m["content"] for m in sent.get("messages", ()) if m["role"] == "tool"]
    if engine == "anthropic":
        blocks = [block for message in sent["messages"] for block in message["content"]]
        told += [block["content"] for block in blocks if block["type"] == "tool_result"]
    told += [item["output"] for item in sent.get("input", ()) if item["type"] == "function_call_output"]
    assert sum(sentinel in text for text in told) >= 4, "the model itself was told"
    transcripts = [conversation_name(events[0].turn_accepted.session_id)]
    assert files_with(pair.state_dir, sentinel) == transcripts, "nothing of it is in the spool"

    started = pair.start_audit(AUDIT_LOG_LEVEL="debug", AUDIT_METRICS_LISTEN="127.0.0.1:0")
    rows = await pair.rows(len(calls))
    await asyncio.sleep(0.2)
    scrapes = [(await asyncio.to_thread(scrape, process)).text for process in (service, started)]
    assert len(collector.spans) >= len(calls)
    for secret in (sentinel, password):
        assert not any(secret.encode() in row.SerializeToString() for row in rows)
        assert files_with(pair.db.parent, secret) == [], "neither in the database nor in its write-ahead log"
        assert files_with(pair.state_dir, secret) == transcripts
        assert not any(secret in text for text in scrapes), "neither in metrics"
        assert secret.encode() not in collector.raw(), "nor in traces"
        for log in (service.stderr_text(), audit.stderr_text(), started.stderr_text()):
            assert secret not in log
    for event in events:
        if not event.HasField("text_delta"):
            assert not re.search(f"{sentinel}|{password}", str(event))
