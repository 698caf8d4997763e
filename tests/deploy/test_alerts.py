"""Alert rules and the dashboard's answer: of metrics that there are, and told when they should be (by promtool)."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from demo.processes import REPOSITORY

RULES = REPOSITORY / "deploy/prometheus/onrecord.rules.yaml"
TESTS = REPOSITORY / "deploy/prometheus/onrecord.rules.test.yaml"
BOARD = REPOSITORY / "deploy/grafana/onrecord.json"
WORKS = {
    'up{job="g", instance="g"}': "1x90",
    'onrecord_spool_records{job="g", instance="g"}': "0x90",
    'onrecord_spool_oldest_row_seconds{instance="g"}': "1x90",
    'onrecord_sender_state{instance="g", state="failing"}': "0x90",
    'onrecord_dead_letters{instance="g"}': "0x90",
    'onrecord_dropped_rows_total{instance="g"}': "3x90",
    'onrecord_lost_rows_total{instance="g"}': "0x90",
    'onrecord_missing_records_total{instance="g"}': "0x90",
    'onrecord_quarantined_pieces_total{instance="g"}': "0x90",
    'onrecord_ledger_queued_rows{job="a", instance="a"}': "0x90",
    'onrecord_ledger_failed_commits_total{instance="a"}': "2x90",
    'onrecord_seal_trouble{instance="a"}': "0x90",
}
"""A pair that works, a value each minute."""
ANSWERS = [
    ({}, 1),
    ({'onrecord_spool_oldest_row_seconds{instance="g"}': "0+60x90"}, 0),
    ({'onrecord_sender_state{instance="g", state="failing"}': "1x90"}, 0),
    ({'onrecord_dead_letters{instance="g"}': "1x90"}, 0),
    ({'onrecord_lost_rows_total{instance="g"}': "0x60 4x30"}, 0),
    ({'onrecord_ledger_failed_commits_total{instance="a"}': "0+1x90"}, 0),
    ({'onrecord_seal_trouble{instance="a"}': "1x90"}, 0),
    ({'up{job="g", instance="g"}': "1x60 0x30"}, 0),
    ({'onrecord_ledger_queued_rows{job="a", instance="a"}': "_x90"}, None),
    ({'onrecord_spool_oldest_row_seconds{instance="g"}': "_x90"}, None),
]
"""What is otherwise, and what the dashboard says then: 1 is yes, 0 is no, None is unknown."""


def promtool(*arguments: str, cwd: Path) -> None:
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "install Debian's package prometheus"
        pytest.skip("promtool is not installed")
    ran = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_rules_are_of_metrics_that_the_manual_has_and_each_is_tried():
    told = set(re.findall(r"`(onrecord_\w+)`", (REPOSITORY / "docs/operations.md").read_text()))
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    for rule in rules:
        named = {name.removesuffix("_total") for name in re.findall(r"onrecord_\w+", rule["expr"])}
        assert named <= told, rule["alert"]
    fine, troubled = yaml.safe_load(TESTS.read_text())["tests"]
    alerts = {rule["alert"] for rule in rules}
    assert {case["alertname"] for case in fine["alert_rule_test"]} == alerts
    fired = {sample["labels"] for sample in troubled["promql_expr_test"][0]["exp_samples"]}
    assert fired == {f'{{alertname="{alert}"}}' for alert in alerts}


@pytest.mark.long
def test_alerts_are_told_when_they_should_be():
    promtool("check", "rules", RULES.name, cwd=RULES.parent)
    promtool("test", "rules", TESTS.name, cwd=TESTS.parent)


def test_the_dashboard_says_yes_only_where_it_knows(tmp_path):
    [panel] = [panel for panel in json.loads(BOARD.read_text())["panels"] if panel["title"] == "All on the record"]
    expression = panel["targets"][0]["expr"].replace("$instance", ".*")
    cases = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in {**WORKS, **other}.items()],
            "promql_expr_test": [
                {
                    "expr": expression,
                    "eval_time": "85m",
                    "exp_samples": [] if answer is None else [{"labels": "{}", "value": answer}],
                }
            ],
        }
        for other, answer in ANSWERS
    ]
    (tmp_path / "board.yaml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": cases}))
    promtool("test", "rules", "board.yaml", cwd=tmp_path)
