"""The process's own secrets are found by their value, in the forms in which a command or a URL may write them."""

import base64
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from recording.redact import protect, redact_name, redact_text, summarize_args
from recording.redact.text import redact_own
from tests.recording.redact.samples import pieces_of

PLAIN = "correct-horse/battery+staple"
ODD = "pä ss'w\"o\\rd&=?#é$%"
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded in lower case": lambda secret: quote(secret, safe="").lower(),
    "percent-encoded as a form": quote_plus,
    "percent-encoded throughout": lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
    "in JSON": lambda secret: json.dumps(secret),
    "in JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "quoted for a shell": shlex.quote,
    "with a shell's backslashes": lambda secret: "".join(c if c.isalnum() else "\\" + c for c in secret),
    "in hex": lambda secret: secret.encode().hex(),
    "in base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "in base64 behind a name": lambda secret: base64.b64encode(b"user:" + secret.encode()).decode(),
    "in base64 behind two": lambda secret: base64.b64encode(b"ab" + secret.encode() + b"xyz").decode(),
    "in base64 for URLs": lambda secret: base64.urlsafe_b64encode(b"??>>" + secret.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [PLAIN, ODD, "\xffÿÿÿ>>>???"])
def test_a_secret_is_found_in_each_form(form, secret):
    protect([secret])
    written = FORMS[form](secret)
    assert "[redacted:own-secret]" in redact_own(f"x {written} y")
    for shown in (redact_text(f"x {written} y"), summarize_args("bash", json.dumps({"command": f"run {written} now"}))):
        assert not pieces_of(written, shown)


@pytest.mark.parametrize("written", ["correct-horse'/battery+'staple", "cor\"rect\"-horse/bat''tery+staple"])
def test_quotes_of_a_shell_hide_nothing(written):
    protect([PLAIN])
    assert redact_text(f"run {written} now") == "run [redacted:own-secret] now"


def test_a_secret_that_somebody_cut_is_found_by_what_is_left():
    protect([PLAIN])
    assert redact_text(f"first {PLAIN[:16]}") == "first [redacted:own-secret]"
    assert redact_text(f"{PLAIN[-16:]} last") == "[redacted:own-secret] last"
    assert redact_text(f"{PLAIN[:14]}[…]{PLAIN[-14:]}") == "[redacted:own-secret][…][redacted:own-secret]"


def test_a_secret_that_stands_twice_is_found_twice():
    protect([PLAIN])
    assert redact_text(PLAIN + PLAIN).replace("[redacted:own-secret]", "") == ""


def test_a_secret_across_a_command_s_or_a_url_s_parts_is_found_whole():
    """What is taken for the end of a word or for a query's name must not be the second half of a key."""
    protect(["a?bcdefghi=jklmnop", "abcdef <<<ghijklmn"])
    assert "bcd" not in summarize_args("webfetch", json.dumps({"url": "https://x.example/a?bcdefghi=jklmnop"}))
    assert "abc" not in summarize_args("bash", json.dumps({"command": "run abcdef <<<ghijklmn"}))


def test_lines_of_a_key_are_found_by_themselves():
    protect([f"-----BEGIN KEY-----\n{'abc1' * 16}\n{'def2' * 16}\n-----END KEY-----\n"])
    assert redact_text("def2" * 16) == "[redacted:own-secret]"


def test_a_short_value_is_no_secret():
    protect(["", "short", "1234567", "        "])
    assert redact_text("a short 1234567 text") == "a short 1234567 text"


def test_what_was_shown_before_it_became_a_secret_is_shown_no_more():
    arguments = json.dumps({"command": "deploy correct-horse-battery", "path": "correct-horse-battery"})
    shown = [summarize_args(tool, arguments) for tool in ("bash", "read") for _ in range(2)]
    assert all("correct-horse-battery" in each for each in shown)
    protect(["correct-horse-battery"])
    for tool in ("bash", "read"):
        assert "correct-horse-battery" not in summarize_args(tool, arguments)


def test_names_hide_secrets_too():
    protect([PLAIN])
    assert redact_name(f"tool_{PLAIN}", 128) == "tool_[redacted:own-secret]"


@pytest.mark.long
def test_a_secret_on_the_border_of_what_is_looked_at_is_not_shown_in_part():
    protect([PLAIN])
    blob = "aB3dE5fG7hJ9" * 330  # taken away, so that the border comes into sight
    for shift in range(200):
        text = "x" * shift + " " + blob + PLAIN * 8
        for shown in (redact_text(text), redact_name(text, 4_096)):
            assert not pieces_of(PLAIN, shown)
