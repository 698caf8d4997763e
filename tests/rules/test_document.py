"""docs/rules.md says what is so: its rules load, and its cases come out as it says."""

import re
from pathlib import Path

from gateway_svc.rules.cases import check_cases, load_cases
from service_kit.rules.conditions import MAX_CONDITION_CHARACTERS
from service_kit.rules.facts import MAX_TEXT_BYTES, MAX_VALUES
from service_kit.rules.file import MAX_RULES, load_policy
from service_kit.rules.policy import MAX_REASON_BYTES

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_rules_of_the_document_decide_its_cases_as_it_says():
    rules, cases = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    policy = load_policy(PAGE, [rules.encode()])
    checked = check_cases(policy, load_cases(PAGE, cases.encode()))
    assert len(checked) >= 2
    assert [case.problem for case in checked if case.problem] == []


def test_the_bounds_of_the_document_are_those_of_the_code():
    page = " ".join(PAGE.read_text().split())
    for told in (
        f"{MAX_TEXT_BYTES // 1024} KiB or {MAX_VALUES:,} values",
        f"more than {MAX_RULES} rules or {MAX_CONDITION_CHARACTERS:,} characters",
        f"at most {MAX_REASON_BYTES} bytes",
    ):
        assert told in page
