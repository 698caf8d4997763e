"""Settings from the environment."""

import json
from pathlib import Path
from typing import Annotated, NoReturn, Self

import pytest
from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_kit.setting_types import HomePath
from service_kit.settings import describe_settings, load_settings, unknown_variables


class Sample(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_")

    port: int = 1
    name: str
    tags: list[str] = []
    url: str = ""
    key: Annotated[SecretStr | None, Field(min_length=8, validation_alias=AliasChoices("SAMPLE_KEY", "OTHER_KEY"))] = (
        None
    )

    @model_validator(mode="after")
    def _no_port_13(self) -> Self:
        if self.port == 13:
            raise ValueError("SAMPLE_PORT: 13 brings bad luck")
        return self


class Homely(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HOMELY_")

    folder: HomePath = Field(Path("~/state"), validate_default=True)
    file: HomePath | None = None


def _no_account(number: int) -> NoReturn:
    raise KeyError(number)


def test_an_account_without_a_home_is_told_which_variable_to_set(monkeypatch, capsys):
    """Neither the default nor what is given ends in a traceback; an absolute path needs no home."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", _no_account)
    monkeypatch.setenv("HOMELY_FILE", "~nobody-here/x")
    with pytest.raises(SystemExit):
        load_settings(Homely)
    assert capsys.readouterr().err.splitlines() == [
        "HOMELY_FOLDER: names a home folder that is not there: give an absolute path (given: '~/state')",
        "HOMELY_FILE: names a home folder that is not there: give an absolute path (given: '~nobody-here/x')",
    ]
    monkeypatch.setenv("HOMELY_FOLDER", "/state")
    monkeypatch.delenv("HOMELY_FILE")
    assert load_settings(Homely).folder == Path("/state")


def sentences(monkeypatch, capsys, **env: str) -> list[str]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load_settings(Sample)
    assert ended.value.code == 2
    told: str = capsys.readouterr().err
    return told.splitlines()


def test_each_wrong_or_missing_variable_is_named_and_the_exit_code_is_2(monkeypatch, capsys):
    told = sentences(monkeypatch, capsys, SAMPLE_PORT="many")
    assert told == [
        "SAMPLE_PORT: must be a whole number (given: 'many')",
        "SAMPLE_NAME: is not set, and has no default",
    ]


@pytest.mark.parametrize("variable", ["SAMPLE_KEY", "OTHER_KEY"])
def test_an_alias_is_named_and_a_secret_is_not_shown(monkeypatch, capsys, variable):
    told = sentences(monkeypatch, capsys, SAMPLE_NAME="n", **{variable: "hunter2"})
    assert len(told) == 1
    assert told[0].startswith(f"{variable}: ")
    assert "hunter2" not in told[0]


def test_a_list_that_is_no_json_is_named_without_its_value(monkeypatch, capsys):
    assert sentences(monkeypatch, capsys, SAMPLE_NAME="n", SAMPLE_TAGS="hunter2") == ["SAMPLE_TAGS: not valid JSON"]


def test_a_rule_over_several_variables_speaks_for_itself(monkeypatch, capsys):
    told = sentences(monkeypatch, capsys, SAMPLE_NAME="n", SAMPLE_PORT="13")
    assert told == ["SAMPLE_PORT: 13 brings bad luck"]


def test_the_description_masks_secrets_and_the_userinfo_of_urls(monkeypatch):
    monkeypatch.setenv("SAMPLE_NAME", "n")
    monkeypatch.setenv("SAMPLE_KEY", "hunter2hunter2")
    monkeypatch.setenv("SAMPLE_URL", "http://user:hunter2@host:1/v1")
    description = describe_settings(load_settings(Sample))
    assert "hunter2" not in str(description)
    assert description["url"] == "http://***@host:1/v1"
    assert description["name"] == "n"
    assert set(describe_settings(load_settings(Sample), only_given=True)) == {"name", "key", "url"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:hunt/er2@host/v1", "http://***@host/v1"),
        ("http://user:hunt@er2@host/v1", "http://***@host/v1"),
        ("http://user:hunt er2,'x'@host/v1", "http://***@host/v1"),
        ("https://host/v1?api_key=hunter2", "https://host/v1?***"),
        ("https://host/v1?a=b@c&key=hunter2", "https://***"),
        ("http://user:hunt?er2@host/v1", "http://***"),
        ("https://host/v1#hunter2", "https://host/v1#***"),
        ("scheme+x://u:hunter2@h?hunter2@x", "scheme+x://***"),
    ],
)
def test_whatever_form_a_secret_has_in_a_url_it_is_masked(monkeypatch, url, shown):
    monkeypatch.setenv("SAMPLE_NAME", "claude-4@20250514")
    monkeypatch.setenv("SAMPLE_URL", url)
    monkeypatch.setenv("SAMPLE_TAGS", json.dumps([url, "a tag"]))
    description = describe_settings(load_settings(Sample))
    assert description["url"] == shown
    assert description["tags"] == str([shown, "a tag"])
    assert description["name"] == "claude-4@20250514", "no URL"


class Odd(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ODD_")
    listen: str = ""
    key: str = Field("", validation_alias=AliasChoices("ODD_KEY", "ODD_API_KEY"))


def test_a_variable_that_is_no_setting_is_told_with_the_nearest_name(monkeypatch):
    for name in ("ODD_LISTEN", "ODD_KEY", "ODD_API_KEY", "ODD_LISTN", "ODD_XYZXYZ", "OTHER_LISTN"):
        monkeypatch.setenv(name, "a secret")
    assert unknown_variables("ODD_", Odd) == [
        "ODD_LISTN is not a setting: is ODD_LISTEN meant?",
        "ODD_XYZXYZ is not a setting",
    ]


@pytest.mark.parametrize("name", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_50052_TCP_ADDR"])
def test_what_kubernetes_sets_for_a_service_of_such_a_name_is_not_meant(monkeypatch, name):
    monkeypatch.setenv(f"ODD_{name}", "10.0.0.1")
    assert unknown_variables("ODD_", Odd) == []
