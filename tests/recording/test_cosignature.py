"""What a witness signs of a checkpoint, held against the words of https://c2sp.org/tlog-cosignature."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosigner, Witness, cosignatures
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Signer, Verifier, open_note

LOG = Signer.new("ledger.example.com/agents")
COSIGNER = Cosigner.new("witness.example.com/w1")
WITNESS = COSIGNER.verifier


def checkpoint(size: int = 7) -> str:
    return str(Checkpoint(LOG.name, size, hashlib.sha256(str(size).encode()).digest()))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_a_line_is_what_the_format_says(size, seconds):
    text = checkpoint(size)
    line = COSIGNER.cosign(text, seconds)
    dash, name, encoded = line.removesuffix("\n").split(" ")
    raw = base64.b64decode(encoded, validate=True)
    assert (dash, name) == ("—", COSIGNER.name)
    public = COSIGNER.private.public_key()
    assert raw[:4] == hashlib.sha256(name.encode() + b"\n\x04" + public.public_bytes_raw()).digest()[:4]
    assert int.from_bytes(raw[4:12], "big") == seconds
    public.verify(raw[12:], f"cosignature/v1\ntime {seconds}\n{text}".encode())
    [found] = cosignatures(LOG.sign(text) + line, [WITNESS])
    assert (found.witness, found.seconds, found.line) == (WITNESS, seconds, line)
    assert open_note(LOG.sign(text) + line, [LOG.verifier]) == text


def test_a_cosignature_of_another_text_or_time_is_refused_and_one_of_a_stranger_passed_over():
    line = COSIGNER.cosign(checkpoint(7), 1_790_000_000)
    with pytest.raises(BadNote, match="does not fit"):
        list(cosignatures(LOG.sign(checkpoint(8)) + line, [WITNESS]))
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    for place in range(4, len(raw)):
        raw[place] ^= 0x80
        with pytest.raises(BadNote):
            list(
                cosignatures(
                    LOG.sign(checkpoint()) + f"— {COSIGNER.name} {base64.b64encode(raw).decode()}\n", [WITNESS]
                )
            )
        raw[place] ^= 0x80
    short = base64.b64encode(raw[:9]).decode()
    with pytest.raises(BadNote):
        list(cosignatures(LOG.sign(checkpoint()) + f"— {COSIGNER.name} {short}\n", [WITNESS]))
    stranger = Cosigner.new(COSIGNER.name).cosign(checkpoint(), 1)
    assert not list(cosignatures(LOG.sign(checkpoint()) + stranger, [WITNESS]))


def test_a_cosignature_counts_once_however_often_it_stands_there():
    line = COSIGNER.cosign(checkpoint(), 1) + COSIGNER.cosign(checkpoint(), 2)
    assert [found.seconds for found in cosignatures(LOG.sign(checkpoint()) + line, [WITNESS])] == [1]


def test_the_keys_of_logs_and_witnesses_are_not_taken_for_each_other():
    assert Witness.parse(str(WITNESS)) == WITNESS
    assert str(Cosigner.parse(str(COSIGNER)).verifier) == str(WITNESS)
    for parse, text in (
        (Witness.parse, str(LOG.verifier)),
        (Verifier.parse, str(WITNESS)),
        (Signer.parse, str(COSIGNER)),
        (Cosigner.parse, str(LOG)),
    ):
        with pytest.raises(BadKey):
            parse(text)
