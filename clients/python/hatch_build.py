"""Builds onrecord-client from three folders: the client, the record, and the generated code of the protos."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARRIED = {
    "lib/onrecord/client": "onrecord/client",
    "../../protos/onrecord": "onrecord",
    "../../recording": "recording",
}
"""Folders of the repository, and where they go in a wheel."""


class CustomBuildHook(BuildHookInterface):
    """Adds the folders to a wheel and to a source distribution. An editable install finds them by its paths."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        if version == "editable":
            return
        root = Path(self.root)
        for folder, carried in CARRIED.items():
            # A source distribution has them where the wheel will.
            source = root / folder if (root / folder).is_dir() else root / carried
            for path in source.rglob("*"):
                if (
                    path.suffix in (".py", ".pyi", ".toml", ".typed", ".proto", ".json")
                    and "__pycache__" not in path.parts
                ):
                    build_data["force_include"][str(path)] = f"{carried}/{path.relative_to(source)}"
