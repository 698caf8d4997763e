"""No text makes redaction take more than time in proportion to its length."""

import time

import pytest

from recording.redact.text import redact

PIECES = [
    *(
        "key=",
        "pin-",
        "adduser",
        "-password",
        "auth=a:",
        "user_",
        "set ",
        "psk ",
        'auth:\\"',
        "password to ",
        "P@ss1",
        "@",
    ),
    *("echo a | ", "name: a_token ", "login a ", "--x-", "a-1-", "/t/", "!a-", "sudo ", "token is ", "s/__", "\\", "'"),
    *("vault write a ttl=1 ", "https -a bearer ", "htpasswd -b ", "variable set a_key ", "jwt.encode(a", "token a1_"),
    *("encrypt_string --a b ", "password:/a/", "password=a(", "key a1B2c3"),
    *(
        "password a is ",
        "s/password/",
        "define('token',",
        "wifi:p:",
        "/key:",
        "contrase",
        "a1B2c3d4 is ",
        "alarm code ",
    ),
]


def _seconds(text: str) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        redact(text)
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.long
@pytest.mark.parametrize("before", ["", "user -u --key otp value name: "])
@pytest.mark.parametrize("piece", PIECES)
def test_a_hostile_text_that_is_four_times_as_long_takes_less_than_quadratic_time(piece, before):
    """CPU time as a ratio of the same code's: quadratic would be 16. Less than this is too short to be measured."""
    short, long = ((before + piece * 4_096)[:length] for length in (1_024, 4_096))
    assert _seconds(long) < max(11 * _seconds(short), 0.05)
