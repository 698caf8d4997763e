"""What a service says of a field, said of what was typed."""

import pytest

from audit_svc.terminal.running import in_options


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("filter.args_contain is longer than 4096 characters", "--contains is longer than 4096 characters"),
        ("filter.created_from_ms is not before created_before_ms", "--since is not before --until"),
        ("filter.calls.tool_name is long", "--tool is long"),
        ("filter.tool_glob has a bracket", "--tool-glob has a bracket"),
        ("filter.agent.name is empty", "--agent is empty"),
        ("filter.recorded_by is long", "--recorded-by is long"),
        ("labels.labels has more than 16 entries", "--label has more than 16 entries"),
        ("session.id is empty", "SESSION is empty"),
        ("name is longer than 128 characters", "NAME is longer than 128 characters"),
        ("no session of that name is on record", "no session of that name is on record"),
        ("group_by has an entry twice", "--by has an entry twice"),
    ],
)
def test_a_field_is_told_as_its_option(message, said):
    assert in_options(message) == said


@pytest.mark.parametrize("field", ["page_token", "resume_token"])
def test_a_token_that_nobody_types_is_not_named(field):
    said = in_options(f"{field} is not one that this service gave for these filters")
    assert said == "the service does not know where the list goes on, as after a restore: give the command again"
