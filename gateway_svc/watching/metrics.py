"""The gateway's metrics. Labels come from fixed lists: neither a model nor a caller can add to them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from recording.calls import UNKNOWN_TOOL
from recording.durations import known_duration_ms

if TYPE_CHECKING:
    from gateway_svc.stopping.stops import Stops
    from gateway_svc.tools.mcp.servers import ServerState

OTHER = "other"
"""The label for tools that are not known beforehand, such as those of Claude's MCP servers."""

_TURN_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STEP_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOOL_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class _EngineSeries:
    ok: Counter
    failed: Counter
    seconds: Histogram
    input: Counter
    output: Counter
    cached_input: Counter
    reasoning: Counter
    cost: Counter
    unpriced: Counter


class TurnMetrics:
    """Counts turns, their steps and their tool calls."""

    def __init__(self, registry: CollectorRegistry, tools: Collection[str] = (), servers: Collection[str] = ()) -> None:
        """`tools` are the names that may become labels. All tools of an MCP server in `servers` share one label."""
        self._tools = frozenset([*tools, UNKNOWN_TOOL])
        self._servers = frozenset(servers)
        self._engines: dict[str, _EngineSeries] = {}
        self._tool_calls: dict[tuple[str, common_pb2.Outcome.ValueType], tuple[Counter, Histogram]] = {}
        self._running = Gauge("onrecord_turns_running", "Turns under way.", ["engine"], registry=registry)
        self._turns = Counter(
            "onrecord_turns", "Turns that have ended, by why they did.", ["engine", "stop_reason"], registry=registry
        )
        self._turn_seconds = Histogram(
            "onrecord_turn_seconds", "How long turns took.", ["engine"], registry=registry, buckets=_TURN_SECONDS
        )
        self._steps = Counter("onrecord_model_requests", "Model requests.", ["engine", "outcome"], registry=registry)
        self._step_seconds = Histogram(
            "onrecord_model_request_seconds",
            "How long model requests took.",
            ["engine"],
            registry=registry,
            buckets=_STEP_SECONDS,
        )
        self._tokens = Counter(
            "onrecord_tokens",
            "Tokens. `input` includes `cached_input`, and `output` includes `reasoning`.",
            ["engine", "kind"],
            registry=registry,
        )
        self._cost = Counter(
            "onrecord_cost_usd", "What model requests cost, US dollars.", ["engine"], registry=registry
        )
        self._unpriced = Counter(
            "onrecord_unpriced_requests", "Model requests whose price is not known.", ["engine"], registry=registry
        )
        self._calls = Counter(
            "onrecord_tool_calls", "Tool calls, by how they ended.", ["tool", "outcome"], registry=registry
        )
        self._call_seconds = Histogram(
            "onrecord_tool_call_seconds",
            "How long tool calls took.",
            ["tool"],
            registry=registry,
            buckets=_TOOL_SECONDS,
        )

    def begin_turn(self, engine: str) -> None:
        """A turn has begun."""
        self._running.labels(engine).inc()

    def end_turn(self, engine: str, stop_reason: str, seconds: float) -> None:
        """A turn has ended, as stop_label() says."""
        self._running.labels(engine).dec()
        self._turns.labels(engine, stop_reason).inc()
        self._turn_seconds.labels(engine).observe(seconds)

    def count_unbegun_failure(self) -> None:
        """A turn has failed before it was known what runs it: its engine is told as `other`."""
        self._turns.labels(OTHER, stop_label(pb.STOP_REASON_FAILED)).inc()

    def count_step(self, cost: audit_pb2.CostRow) -> None:
        """A model request has ended."""
        of = self._of_engine(cost.engine)
        (of.failed if cost.HasField("error") else of.ok).inc()
        of.seconds.observe(cost.duration_ms / 1000)
        of.input.inc(cost.input_tokens)
        of.output.inc(cost.output_tokens)
        of.cached_input.inc(cost.cached_input_tokens)
        of.reasoning.inc(cost.reasoning_tokens)
        if cost.HasField("cost_micros"):
            of.cost.inc(cost.cost_micros / 1_000_000)
        else:
            of.unpriced.inc()

    def count_tool_call(self, row: audit_pb2.AuditRow) -> None:
        """A tool call has ended."""
        key = row.tool_name, row.outcome
        series = self._tool_calls.get(key) or self._of_tool(key)
        series[0].inc()
        took_ms = known_duration_ms(row.outcome, row.duration_ms)
        if took_ms is not None:
            series[1].observe(took_ms / 1000)

    def _of_engine(self, engine: str) -> "_EngineSeries":
        """Cached, since looking up a series by its labels takes longer than counting."""
        if engine not in self._engines:
            self._engines[engine] = _EngineSeries(
                ok=self._steps.labels(engine, "ok"),
                failed=self._steps.labels(engine, "error"),
                seconds=self._step_seconds.labels(engine),
                input=self._tokens.labels(engine, "input"),
                output=self._tokens.labels(engine, "output"),
                cached_input=self._tokens.labels(engine, "cached_input"),
                reasoning=self._tokens.labels(engine, "reasoning"),
                cost=self._cost.labels(engine),
                unpriced=self._unpriced.labels(engine),
            )
        return self._engines[engine]

    def _of_tool(self, key: tuple[str, common_pb2.Outcome.ValueType]) -> tuple[Counter, Histogram]:
        """Kept for the tools that are labels, whose number is bounded."""
        tool = self._label(key[0])
        series = self._calls.labels(tool, outcome_label(key[1])), self._call_seconds.labels(tool)
        if tool == key[0]:
            self._tool_calls[key] = series
        return series

    def _label(self, tool: str) -> str:
        if tool in self._tools:
            return tool
        server = tool.partition(".")[0]
        return f"{server}.*" if server in self._servers else OTHER


def add_waiting_gauge(registry: CollectorRegistry, waiting: Callable[[], int]) -> None:
    """A gauge of waiting turns, read at each scrape."""
    Gauge("onrecord_turns_waiting", "Turns that wait for their beginning.", registry=registry).set_function(waiting)


def stop_label(stop_reason: pb.StopReason.ValueType) -> str:
    """A stop reason as a label."""
    return pb.StopReason.Name(stop_reason).removeprefix("STOP_REASON_").lower()


def outcome_label(outcome: common_pb2.Outcome.ValueType) -> str:
    """How a tool call ended, as a label."""
    return common_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()


class StopsCollector(Collector):
    """What stops there are and what they did, read at each scrape."""

    def __init__(self, stops: "Stops") -> None:
        self._stops = stops

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The metrics now (prometheus_client's Collector)."""
        text = "Stops that an administrator has made and not lifted."
        yield GaugeMetricFamily("onrecord_stops", text, value=len(self._stops.by_scope()))
        text = "Turns and tool calls that stops have refused or ended."
        counts = CounterMetricFamily("onrecord_stopped", text, labels=["what"])
        for what, count in self._stops.counts.items():
            counts.add_metric([what], count)
        yield counts


class McpCollector(Collector):
    """The state of MCP servers, read at each scrape."""

    def __init__(self, states: "Callable[[], Iterator[ServerState]]") -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("onrecord_mcp_up", "Whether an MCP server is connected.", labels=["server"])
        tools = GaugeMetricFamily("onrecord_mcp_tools", "An MCP server's tools.", labels=["server", "state"])
        for state in self._states():
            up.add_metric([state.name], float(state.is_up))
            tools.add_metric([state.name, "offered"], state.offered)
            tools.add_metric([state.name, "left_out"], state.left_out)
        yield from (up, tools)
