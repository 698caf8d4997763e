"""The digest of arguments is HMAC-SHA-256, also in a child that forked while a thread made its first one."""

import hashlib
import hmac
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.sha256 import Hmac, sha256

_FORKS = """
import os, sys, threading
from recording.sha256 import Hmac
sys.setswitchinterval(1e-5)
digest = lambda: Hmac(b"k" * 32).digest(b"x" * 50)

def start_threads():
    while True:
        thread = threading.Thread(target=digest)
        thread.start()
        thread.join()

for _ in range(3):
    threading.Thread(target=start_threads, daemon=True).start()
hung = 0
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        thread = threading.Thread(target=digest, daemon=True)
        thread.start()
        thread.join(20)
        os._exit(thread.is_alive())
    hung += os.waitpid(child, 0)[1] != 0
os._exit(hung > 0)
"""


@given(key=st.binary(max_size=64), data=st.binary(max_size=300))
def test_it_is_what_the_standard_library_computes(key: bytes, data: bytes) -> None:
    assert Hmac(key).digest(data) == hmac.digest(key, data, "sha256")
    assert sha256(data).digest() == hashlib.sha256(data).digest()


def test_a_longer_key_is_refused() -> None:
    with pytest.raises(ValueError, match="65 bytes where 64 are the most"):
        Hmac(bytes(65))


def test_it_takes_no_lock_of_openssl() -> None:
    assert type(sha256()).__module__ in {"_sha2", "_sha256"}


@pytest.mark.long(nightly=True)
def test_a_child_forked_beside_a_first_digest_makes_its_own() -> None:
    """With OpenSSL's, 5 children of 4,000 waited for ever."""
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", _FORKS, "3000"], cwd=root, timeout=300).returncode == 0
