"""Passwords that their place in a command tells, and words in such places that are none."""

import json

import pytest

from recording import redact


def _shown(command: str) -> str:
    shown: str = json.loads(redact.summarize_args("bash", json.dumps({"command": command})))["command"]
    return shown


@pytest.mark.parametrize(
    ("command", "secret"),
    [
        ("couch-cli list -u boss -p meadowlark", "meadowlark"),
        ("./rotate.sh billing root humming.bird2", "humming.bird2"),
        ("appctl set_password kenji rug_42", "rug_42"),
        ("echo 'meadow-Lark' | keeper open", "meadow-Lark"),
        ("printf 'root\\nmeadow-Lark\\n' | keeper open", "meadow-Lark"),
        ("X=meadow_lark; tool --password $X", "meadow_lark"),
        ("tool -p meadow8lark -c meadow8lark", "meadow8lark"),
        ("ssh web1 'keeper -u boss -p meadowlark'", "meadowlark"),
    ],
)
def test_a_word_in_a_password_s_place_is_not_shown(command, secret):
    assert secret not in _shown(command)


@pytest.mark.parametrize(
    "command",
    [
        "keeper -u boss -p 8443 list",
        "keeper -u boss -p ./data list",
        "keeper open db1.example.com report_2024.csv v1.2.3-rc1",
        "mkdir -p build2 && cp -p a1.txt b2.txt",
        "ssh web1 'tail -n 20 /var/log/app1.log'",
        "# ask bob for the password, it is kept in the vault\nls",
        "echo build42 | grep 42",
        "tool login registry.example.com",
    ],
)
def test_a_port_a_path_a_file_a_host_and_a_filter_s_text_are_shown(command):
    assert _shown(command) == command
