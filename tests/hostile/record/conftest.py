"""Both services with a list of callers, as real processes, and people who say arbitrary things to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from service_kit.access.roles import Role, make_token
from tests.e2e.conftest import make_pair

__all__ = ["make_pair"]

Metadata = tuple[tuple[str, str], ...]


class Listed:
    """A list of callers, and what each of them shows."""

    def __init__(self, folder: Path, roles: Mapping[str, Sequence[Role]]) -> None:
        made = {name: make_token(name, given) for name, given in roles.items()}
        self.path = folder / "callers.toml"
        self.path.write_text("".join(f"{table}\n" for _, table in made.values()))
        self._tokens = {name: token for name, (token, _) in made.items()}

    def token_file(self, name: str) -> str:
        """A file with the token of that caller."""
        path = self.path.with_name(f"{name}.token")
        path.write_text(self._tokens[name])
        return str(path)

    def shown_by(self, name: str) -> Metadata:
        """The metadata of a call of that caller."""
        return (("authorization", f"Bearer {self._tokens[name]}"),)
