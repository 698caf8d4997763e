"""What a client hears of an answer that the program began again, however often, is in the end the whole answer."""

from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.engines.claude.speech import AGAIN, Speech

words = st.lists(st.sampled_from(["one ", "two ", "three ", "four "]), max_size=6)


@given(
    abandoned=st.lists(words, max_size=4),
    last=words.filter(bool),
    streamed=st.booleans(),
    whole=st.booleans(),
    blocks=st.integers(1, 3),
)
def test_the_client_has_the_whole_text_behind_the_last_notice(abandoned, last, streamed, whole, blocks):
    told: list[str] = []
    kept: list[str] = []
    speech = Speech(told.append, kept.append)
    for number, pieces in enumerate(abandoned):
        speech.begin(f"msg_{number}", anew=True)
        for piece in pieces:
            speech.add_piece(piece)
    size = -(-len(last) // blocks)
    for at in range(0, len(last), size):
        block = last[at : at + size]
        if streamed:
            speech.begin("msg_last", anew=at == 0)
            for piece in block:
                speech.add_piece(piece)
        if whole or not streamed:
            speech.add_block("msg_last", "".join(block))
    speech.complete()
    heard = "".join(told)
    assert "".join(kept) == "".join(last)
    assert heard.rpartition(AGAIN)[2] == "".join(last)
    assert heard.count(AGAIN) <= len(abandoned)
