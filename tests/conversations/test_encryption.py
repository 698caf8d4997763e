"""What encrypts a session's records: each is good in its place alone, and nothing but the key reads it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.conversations.encryption import OVERHEAD_BYTES, Cipher, Keys, NotGenuine, is_encrypted
from gateway_svc.errors import KeyMissing, SettingsError
from recording.key_file import Key

NEW, OLD = Key("new", b"n" * 32), Key("old", b"o" * 32)
kinds, places = st.integers(0, 255), st.integers(0, 2**64 - 1)


def cipher(*keys: Key, session_id: str = "s-1", owner: str = "ada") -> Cipher:
    return Keys(keys or (NEW, OLD)).cipher(session_id, owner)


@given(kinds, places, st.binary(max_size=100))
def test_what_was_encrypted_comes_back_and_shows_nothing(kind, place, payload):
    stored = cipher().encrypt(kind, place, payload)
    assert cipher().decrypt(kind, place, stored) == payload
    assert is_encrypted(stored)
    assert len(payload) < len(stored) <= len(payload) + OVERHEAD_BYTES
    assert len(payload) < 6 or payload not in stored


@given(st.data())
def test_a_record_that_was_changed_cut_or_lengthened_anywhere_is_refused(data):
    stored = bytearray(cipher().encrypt(1, 7, b'{"user":"a secret"}'))
    at = data.draw(st.integers(0, len(stored) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "grow", "replace"]))
    if change == "flip":
        stored[at] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del stored[at:]
    elif change == "grow":
        stored[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        stored[at:] = os.urandom(len(stored) - at)
    box = cipher()
    box.takes_clear = False
    with pytest.raises((NotGenuine, KeyMissing)):
        box.decrypt(1, 7, bytes(stored))


@pytest.mark.parametrize(
    ("other", "kind", "place"),
    [
        (cipher(session_id="s-2"), 1, 7),
        (cipher(owner="bob"), 1, 7),
        (cipher(session_id="s-1a", owner="da"), 1, 7),
        (cipher(), 2, 7),
        (cipher(), 1, 8),
        (cipher(Key("new", b"another" + bytes(25))), 1, 7),
    ],
)
def test_a_record_is_none_of_another_session_owner_kind_place_or_key(other, kind, place):
    with pytest.raises(NotGenuine, match="it was changed, or is from elsewhere"):
        other.decrypt(kind, place, cipher().encrypt(1, 7, b"said"))


def test_a_key_that_is_gone_is_told_by_its_id_and_the_setting():
    stored = cipher(OLD).encrypt(1, 7, b"said")
    assert cipher(NEW, OLD).decrypt(1, 7, stored) == b"said"
    assert (cipher(NEW, OLD).is_current(stored), cipher(OLD, NEW).is_current(stored)) == (False, True)
    with pytest.raises(KeyMissing, match="s-1 is encrypted by the key old, and GATEWAY_SESSIONS_KEY_FILE lacks it"):
        cipher(NEW).decrypt(1, 7, stored)
    with pytest.raises(KeyMissing, match="GATEWAY_SESSIONS_KEY_FILE is not set"):
        Keys().cipher("s-1", "ada").decrypt(1, 7, stored)


def test_no_nonce_comes_twice():
    box = cipher()
    assert len({box.encrypt(1, 7, b"the same")[5:17] for _ in range(1000)}) == 1000


def test_a_record_in_clear_is_none_of_an_encrypted_session():
    box = cipher()
    assert box.decrypt(1, 7, b"{}") == b"{}"
    box.takes_clear = False
    with pytest.raises(NotGenuine, match="is in clear"):
        box.decrypt(1, 7, b"{}")


def test_keys_are_compared_with_those_that_a_home_has_noted():
    noted = Keys([OLD]).checks()
    Keys([NEW, OLD]).compare(noted)
    Keys([NEW]).compare(noted)  # told in the log, and by each session
    with pytest.raises(SettingsError, match=r"GATEWAY_SESSIONS_KEY_FILE: is not set.*\(by old\)"):
        Keys().compare(noted)
    with pytest.raises(SettingsError, match="its key old is another"):
        Keys([Key("old", b"x" * 32)]).compare(noted)
    assert b"o" * 16 not in noted["old"]
