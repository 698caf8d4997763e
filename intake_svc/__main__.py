"""intake-svc: puts agents on the record that export OpenTelemetry."""

from service_kit.producing.letter_commands import dead_letters
from service_kit.terminal.elsewhere import DOWN
from service_kit.terminal.program import Command, Group, Program

program = Program(
    "intake-svc",
    Group(
        "Puts agents on the record that export OpenTelemetry.",
        {
            "serve": Command("intake_svc.serving:serve", "Serve until SIGTERM.", is_service=True),
            "health": Command("intake_svc.serving:health", "Ask a running service whether it serves."),
            "dead-letters": dead_letters("intake_svc.settings:StateSettings", "INTAKE_STATE_DIR"),
            "setup": Command("intake_svc.setup.command:setup", "Print an agent's own configuration."),
            "token": Command(
                "service_kit.access.token_command:token",
                "Make a token, and the table that lets it in.",
                {"variable": "INTAKE_TOKENS_FILE", "roles": ("producer", "admin")},
            ),
        },
    ),
    Command("service_kit.client:client_options", ""),
    told={"down": DOWN},
)


def main() -> None:
    """The console script."""
    program.main()


if __name__ == "__main__":
    main()
