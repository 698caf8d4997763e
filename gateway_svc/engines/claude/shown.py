"""What the record shows of the arguments of Claude's own tools, by its names for them."""

from recording.show import Show

SHOWN_OF_CLAUDE = {
    "Bash": {"command": Show.COMMAND, "timeout": Show.NUMBER, "run_in_background": Show.NUMBER},
    "Edit": {"file_path": Show.PATH, "replace_all": Show.NUMBER},
    "Glob": {"pattern": Show.TEXT, "path": Show.PATH},
    "Grep": {"pattern": Show.TEXT, "path": Show.PATH, "glob": Show.TEXT, "output_mode": Show.WORD},
    "Read": {"file_path": Show.PATH, "offset": Show.NUMBER, "limit": Show.NUMBER},
    "WebFetch": {"url": Show.URL},
    "Write": {"file_path": Show.PATH},
}
