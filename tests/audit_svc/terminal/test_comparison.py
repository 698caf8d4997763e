"""Shadows are compared call by call, turn by turn, and only in turns that they ran."""

from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.terminal.comparison import compare


def call(turn: str, tool: str, arguments: str = "{}", *, shadow: bool = False, engine: str = "") -> questions_pb2.Entry:
    row = audit_pb2.AuditRow(
        turn_id=turn, tool_name=tool, args_summary=arguments, shadow=shadow, engine=engine or ("b" if shadow else "a")
    )
    return questions_pb2.Entry(tool_call=questions_pb2.ToolCallRecord(tool_call=row))


def request(
    turn: str, cost: int | None = 5, *, shadow: bool = False, error: str | None = None, engine: str = ""
) -> questions_pb2.Entry:
    row = audit_pb2.CostRow(
        turn_id=turn,
        engine=engine or ("b" if shadow else "a"),
        shadow=shadow,
        cost_micros=cost,
        duration_ms=10,
        input_tokens=7,
        output_tokens=3,
        error=error,
    )
    return questions_pb2.Entry(model_request=questions_pb2.ModelRequestRecord(model_request=row))


def test_calls_agree_by_turn_tool_and_arguments_as_often_as_they_were_made():
    comparison = compare(
        [
            *(call("1", "read", "x"), call("1", "read", "x"), call("1", "bash", "y"), call("1", "grep"), request("1")),
            *(call("1", "read", "x", shadow=True), call("1", "bash", "other", shadow=True)),
            *(call("1", "grep", shadow=True), call("1", "grep", shadow=True), request("1", shadow=True)),
            *(call("2", "bash", "y"), request("2"), request("2", shadow=True), call("2", "read", "x", shadow=True)),
        ]
    )
    worked, shadow = comparison.sides
    assert (worked.shadow, shadow.shadow) == (False, True)
    assert (worked.tool_calls.total(), shadow.tool_calls.total()) == (5, 5)
    assert (shadow.agreed_calls, shadow.own_calls, shadow.missing_calls) == (2, 3, 3)
    assert (("1", "read", "x"), [2, 1]) in comparison.calls()


def test_figures_are_those_of_the_turns_that_a_shadow_ran():
    comparison = compare(
        [
            request("1"),
            request("1", None, error="limit"),
            request("1", 20, shadow=True),
            request("2", 1_000),
            call("2", "x"),
        ]
    )
    worked, shadow = comparison.sides
    assert (worked.model_requests, worked.model_request_errors) == (2, 1)
    assert (worked.known_cost_micros, worked.unpriced_requests) == (5, 1)
    assert (worked.model_ms, worked.input_tokens, worked.output_tokens) == (20, 14, 6)
    assert (shadow.known_cost_micros, shadow.per_turn(shadow.known_cost_micros)) == (20, 20)
    assert comparison.to_json()["engines"][1]["turns"] == 1


def test_a_shadow_is_beside_all_that_worked_in_the_turns_that_it_ran_and_no_other():
    comparison = compare(
        [
            *(request("1", 5, error="down"), request("1", 40, engine="z"), request("1", 20, shadow=True)),
            *(request("2", 1_000), request("2", 7, shadow=True, engine="c")),
        ]
    )
    first, second = comparison.shadows
    beside = comparison.beside(first)
    assert (beside.name, beside.known_cost_micros, beside.model_ms) == ("a ·  and z · ", 45, 20)
    assert (comparison.beside(second).name, comparison.beside(second).known_cost_micros) == ("a · ", 1_000)


def test_without_shadows_there_is_nothing_to_compare():
    assert compare([request("1"), call("1", "read")]).sides == []
