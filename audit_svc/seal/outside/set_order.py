"""Sorts the certificates in a time-stamp, as DER has the elements of a set.

Nobody signs their order, and many authorities, OpenSSL among them, send them as they come; the library that reads
stamps refuses that. All else stays as it is, and is read by the library.
"""

_SEQUENCE, _SET, _INTEGER, _OID, _CONTEXT_0 = 0x30, 0x31, 0x02, 0x06, 0xA0
_PATH = (
    (_SEQUENCE, ()),  # TimeStampResp
    (_SEQUENCE, (_SEQUENCE,)),  # timeStampToken, behind the status
    (_CONTEXT_0, (_OID,)),  # its content, behind the content's type
    (_SEQUENCE, ()),  # SignedData
    (_CONTEXT_0, (_INTEGER, _SET, _SEQUENCE)),  # certificates, behind the version, the digests and what is signed
)
"""From the outside in: the tag of each part, and the tags of those before it."""


def sorted_certificates(answer: bytes) -> bytes:
    """An answer of RFC 3161 with its certificates in order; as it is where it is none, or has none."""
    begin, end = 0, len(answer)
    try:
        for wanted, before in _PATH:
            for tag in (*before, wanted):
                found, content, after = _element(answer, begin, end)
                if found != tag:
                    return answer
                begin = after
            begin, end = content, after
        parts, place = [], begin
        while place < end:
            _, _, after = _element(answer, place, end)
            parts.append(answer[place:after])
            place = after
    except ValueError:
        return answer
    return answer[:begin] + b"".join(sorted(parts)) + answer[end:]


def _element(data: bytes, begin: int, end: int) -> tuple[int, int, int]:
    """The tag of the element at begin, and where its content begins and ends. Raises ValueError: it is not whole."""
    head = data[begin : min(begin + 2, end)]
    if len(head) < 2:
        raise ValueError
    content = begin + 2
    length = head[1]
    if length >= 0x80:
        content += length - 0x80
        length = int.from_bytes(data[begin + 2 : content])
    if content + length > end:
        raise ValueError
    return head[0], content, content + length
