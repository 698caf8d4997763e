"""The command line. Each command's module is loaded when it runs."""

from service_kit.terminal.elsewhere import DOWN
from service_kit.terminal.program import Command, Group, Program

_QUERIES = "audit_svc.terminal.queries"
_CARE = "audit_svc.terminal.care"
_SERVING = "audit_svc.terminal.serving"
_SCHEMA = "audit_svc.terminal.schema"
_SEAL = "audit_svc.terminal.seal"

program = Program(
    "audit-svc",
    Group(
        "The ledger of tool calls: owns the database and answers questions about it.",
        {
            "serve": Command(f"{_SERVING}:serve", "Serve until SIGTERM or SIGINT.", is_service=True),
            "health": Command(f"{_SERVING}:health", "Ask a running service whether it serves."),
            "calls": Command(f"{_QUERIES}:calls", "List tool calls, the newest first."),
            "requests": Command(f"{_QUERIES}:requests", "List requests to models, the newest first."),
            "errors": Command(
                f"{_QUERIES}:errors",
                "List what failed, with the reason: tool calls, model requests, sessions' last turns.",
            ),
            "sessions": Command(f"{_QUERIES}:sessions", "List sessions, the newest first."),
            "show": Command(f"{_QUERIES}:show", "Show what happened in a session, from its beginning to its end."),
            "usage": Command(f"{_QUERIES}:usage", "Count tool calls, model requests, tokens and money in groups."),
            "controls": Command(
                f"{_QUERIES}:controls", "List stops, resumes and rules that came into force, the newest first."
            ),
            "queries": Command(f"{_QUERIES}:queries", "List who asked the ledger what, the newest first."),
            "tail": Command("audit_svc.terminal.tail:tail", "Show tool calls as they are recorded, until interrupted."),
            "compare": Command("audit_svc.terminal.compare:compare", "Show an engine beside its shadows."),
            "export": Command(
                "audit_svc.terminal.export:export", "Write tool calls, or rows of another kind, to a file."
            ),
            "producers": Command(
                "audit_svc.terminal.producers:producers", "List producers, and what never came of them."
            ),
            "backup": Command(f"{_CARE}:backup", "Make a copy of the ledger as it is at one moment, and check it."),
            "copy": Command(
                "audit_svc.terminal.copy:copy",
                "Copy a ledger that no service has open, from a file to PostgreSQL or back.",
            ),
            "check": Command(f"{_CARE}:check", "Check a ledger or a backup, beside a running service too."),
            "verify": Command(f"{_SEAL}.verify:verify", "Check a ledger or a backup against its seal."),
            "proof": Command(f"{_SEAL}.proof:proof", "Print the proof of a row."),
            "seal": Group(
                "Look at the seal, its key, and what it has not sealed yet.",
                {
                    "status": Command(f"{_SEAL}.state:status", "Show the log's name, key and last checkpoint."),
                    "run": Command(
                        f"{_SEAL}.state:run", "Seal what is committed and not yet sealed, once, without a service."
                    ),
                    "accept-restore": Command(
                        f"{_SEAL}.state:accept_restore", "Go on with a ledger that was restored from a backup."
                    ),
                    "key": Group(
                        "Make or show the log's key.",
                        {
                            "new": Command(f"{_SEAL}.keys:new", "Make a signing key before the first start."),
                            "show": Command(f"{_SEAL}.keys:show", "Print the verifier key."),
                            "rotate": Command(
                                f"{_SEAL}.keys:rotate", "Begin to sign with a new key beside the old one."
                            ),
                            "retire": Command(f"{_SEAL}.keys:retire", "End that two keys sign."),
                        },
                    ),
                },
            ),
            "prune": Command(f"{_CARE}:prune", "Remove what began before a time; a summary stays."),
            "erase": Command("audit_svc.terminal.erase:erase", "Erase the texts of rows; all else of them stays."),
            "hold": Group(
                "Keep rows from being pruned and erased.",
                {
                    "place": Command("audit_svc.terminal.hold:place", "Keep rows from being pruned and erased."),
                    "lift": Command("audit_svc.terminal.hold:lift", "End a hold."),
                    "list": Command("audit_svc.terminal.hold:list_", "List the holds that are in place."),
                },
            ),
            "rebuild-rollups": Command(f"{_CARE}:rebuild_rollups", "Make the rollups again from the rows."),
            "rebuild-texts": Command(f"{_CARE}:rebuild_texts", "Make the index of texts again from the rows."),
            "vacuum": Command(f"{_CARE}:vacuum", "Write the file anew without the space of rows that are gone."),
            "ui": Command(
                "audit_svc.terminal.ui:ui",
                "Show a running ledger as pages. Needs the extra `ui`.",
                is_service=True,
            ),
            "token": Command(
                "service_kit.access.token_command:token",
                "Make a token, and the table that lets it in.",
                {"variable": "AUDIT_TOKENS_FILE", "roles": ("producer", "reader", "admin")},
            ),
            "migrate": Group(
                "Look at the database's schema and change it, while no service has it open.",
                {
                    "up": Command(f"{_SCHEMA}:up", "Apply pending migrations."),
                    "down": Command(f"{_SCHEMA}:down", "Undo migrations, the newest first."),
                    "status": Command(f"{_SCHEMA}:status", "Show where each migration stands."),
                },
            ),
        },
    ),
    Command("service_kit.client:client_options", ""),
    told={
        "down": DOWN,
        "restore": "stop the service, put the backup in place (docs/operations.md#restore)",
    },
)


def main() -> None:
    """The console script."""
    program.main()


if __name__ == "__main__":
    main()
