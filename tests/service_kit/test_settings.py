"""Settings from the environment."""

from typing import Annotated, Self

import pytest
from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_kit.settings import describe_settings, load_settings


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
    assert told[0].startswith("SAMPLE_PORT: ")
    assert "integer" in told[0]
    assert told[1] == "SAMPLE_NAME: is not set, and has no default"
    assert len(told) == 2


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
