"""Random characters are told from names where nothing else tells them."""

import random
import string

import pytest

from recording.redact.randomness import find, is_name

ALPHABET = string.ascii_letters + string.digits


@pytest.mark.parametrize("length", [32, 40, 64])
def test_random_letters_and_digits_are_mostly_found(length):
    chance = random.Random(5)
    found = sum(bool(find("".join(chance.choices(ALPHABET, k=length)))) for _ in range(1_000))
    assert found >= 930


@pytest.mark.parametrize(
    "text",
    [
        "3f2b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b",
        "550e8400-e29b-41d4-a716-446655440000",
        "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
        "Qwen3-235B-A22B-Instruct-2507",
        "TestOAuth2TokenExchangeV2WithPKCE",
        "IMG20240131WA0001Edited",
        "src/main/java/com/example/OAuth2/JwtV2Filter",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDvSThz7Wv2Sn3T4Tc",
        "-" * 40,
        "+/" * 20,
    ],
)
def test_names_and_digests_are_not(text):
    assert find(text) == []


@pytest.mark.parametrize("name", ["path", "max_characters", "user[id]", "X-Request-Id", "x" * 40])
def test_names(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "text", ["", "1a", "two words", "x" * 41, "é", "a\n", "deadbeef01234567", "aB3dE5fG7hJ9kL1mN3"]
)
def test_no_names(text):
    assert not is_name(text)
