"""What the log says of its own key: that another took its place, and that the one before signs no more."""

import json
from dataclasses import dataclass
from typing import Literal, Self

from audit_svc.seal import leaf
from audit_svc.seal.log import OWN

Act = Literal["rotate", "retire"]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """From a rotation on both keys sign each checkpoint, until the old one is retired."""

    act: Act
    key: str
    """The verifier key that signs from now on."""
    old: str
    """The one before."""
    reason: str
    by: str

    def leaf(self, at_ms: int) -> str:
        """What stands in the log of it."""
        said = {"kind": OWN, "v": str(leaf.VERSION), "act": self.act, "at": str(at_ms), "by": self.by}
        return leaf.canonical({**said, "key": self.key, "old": self.old, "reason": self.reason}).decode()

    @classmethod
    def parse(cls, said: str) -> Self | None:
        """Reads an entry of the log; None where it is of something else."""
        try:
            read = json.loads(said)
            if read["act"] not in ("rotate", "retire") or read["v"] != str(leaf.VERSION):
                return None
            return cls(read["act"], *(str(read[name]) for name in ("key", "old", "reason", "by")))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
