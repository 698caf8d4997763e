"""Files of keys: what is one is read, and what is none is told without a word of it."""

import re
import subprocess
from pathlib import Path

import pytest

from recording.channel.watched import WrongFile
from recording.key_file import Key, read_keys

ONE, OTHER = "a1" * 32, "B2" * 32


def test_the_first_line_is_the_key_in_use(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the year\n\n new.key-1 {ONE}\r\nold\t{OTHER}", "utf-8")
    path.chmod(0o600)
    assert read_keys(path) == [Key("new.key-1", bytes.fromhex(ONE)), Key("old", bytes.fromhex(OTHER))]
    assert ONE not in repr(read_keys(path))


def test_the_line_that_is_told_makes_a_key_whose_id_has_the_time_of_day(tmp_path):
    path = tmp_path / "keys"
    path.write_text("", "utf-8")
    with pytest.raises(WrongFile) as refused:
        read_keys(path)
    command = str(refused.value).split("`")[1]
    path.write_bytes(subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout)
    (key,) = read_keys(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}", key.id), "two of one day have ids of their own"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        (ONE, "line 1 must be an id and a key"),
        (f"a {ONE}\nb {OTHER} c", "line 2 must be an id and a key"),
        (f"ä {ONE}", "line 1 must be an id and a key"),
        (f"{'a' * 65} {ONE}", "line 1 must be an id and a key"),
        (f"a {ONE[:-2]}", "256 bits"),
        (f"a {ONE}00", "256 bits"),
        (f"a {'g1' * 32}", "256 bits"),
        (f"a {ONE}\na {OTHER}", "the same id"),
        (f"a {ONE}\nb {ONE.upper()}", "the same key"),
        ("\0\xff" * 40, "line 1"),
    ],
)
def test_what_is_no_file_of_keys_is_told_without_what_is_in_it(tmp_path, content, told):
    path = tmp_path / "keys"
    path.write_text(content, "utf-8")
    with pytest.raises(WrongFile, match=told) as refused:
        read_keys(path)
    assert "a1a1" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_one_that_everybody_may_read_is_warned_of_and_one_that_everybody_may_write_is_refused(tmp_path, capsys, caplog):
    path = Path(tmp_path / "keys")
    path.write_text(f"a {ONE}", "utf-8")
    path.chmod(0o644)
    read_keys(path)
    assert "files.readable_by_all" in caplog.text + "".join(capsys.readouterr())
    path.chmod(0o602)
    with pytest.raises(WrongFile, match="chmod o-w"):
        read_keys(path)
