"""gateway-svc: the service, and a client of it for people. Each command's module is loaded when it runs."""

from service_kit.producing.letter_commands import dead_letters
from service_kit.terminal.elsewhere import DOWN
from service_kit.terminal.program import Command, Group, Program

_CLIENT = "gateway_svc.terminal.sessions"
_TURNS = "gateway_svc.terminal.turns"
_APPROVING = "gateway_svc.approving"
_STOPPING = "gateway_svc.stopping.commands"
_RULES = "gateway_svc.rules.commands"
_CONVERSATIONS = "gateway_svc.conversations.commands"
_REWRITING = "gateway_svc.conversations.rewriting"

program = Program(
    "gateway-svc",
    Group(
        "The gateway that runs agents, and a client of it for people.",
        {
            "serve": Command("gateway_svc.serving:serve", "Serve until SIGTERM.", is_service=True),
            "worker": Command("gateway_svc.serving:worker", "", is_service=True),
            "run": Command(f"{_TURNS}:run", "Give an agent a task and watch it work."),
            "chat": Command(f"{_TURNS}:chat", "Talk with an agent, turn after turn, in one session."),
            "change": Command(f"{_CLIENT}:change", "Change what the next turns of a session run with."),
            "engines": Command(f"{_CLIENT}:engines", "List the configured engines."),
            "health": Command(f"{_CLIENT}:health", "Ask a running gateway whether it serves."),
            "sessions": Group(
                "Sessions: list or delete those of a running gateway; check, export or encrypt what is kept.",
                {
                    "delete": Command(f"{_CLIENT}:delete", "Delete a session and all that was said in it."),
                    "check": Command(f"{_CONVERSATIONS}:check", "Look through the files of all sessions."),
                    "export": Command(f"{_CONVERSATIONS}:export", "Print a session with all that was said in it."),
                    "encrypt": Command(f"{_REWRITING}:encrypt", "Encrypt all sessions by the first key."),
                    "decrypt": Command(f"{_REWRITING}:decrypt", "Put all sessions in clear."),
                },
                Command(f"{_CLIENT}:sessions", "List the sessions that the gateway keeps."),
            ),
            "transcript": Command(
                "gateway_svc.terminal.transcript:transcript", "Print what was said in a session of yours."
            ),
            "approvals": Command(f"{_APPROVING}:approvals", "List the tool calls that wait for somebody's answer."),
            "approve": Command(f"{_APPROVING}:approve", "Let a waiting tool call run."),
            "deny": Command(f"{_APPROVING}:deny", "Refuse a waiting tool call."),
            "stop": Command(f"{_STOPPING}:stop", "Stop agents: end what runs, refuse what comes."),
            "stops": Command(f"{_STOPPING}:stops", "List the stops in force."),
            "resume": Command(f"{_STOPPING}:resume", "Lift a stop."),
            "tools": Command("gateway_svc.tool_list:tools", "List the tools that this environment offers."),
            "dead-letters": dead_letters("gateway_svc.settings:StateSettings", "GATEWAY_STATE_DIR"),
            "rules": Group(
                "Rules on arguments: check a file, run cases, try it on the record.",
                {
                    "check": Command(f"{_RULES}:check", "Check a file of rules."),
                    "test": Command(f"{_RULES}:run_cases", "Run cases against a file of rules."),
                    "try": Command(f"{_RULES}:try_on_record", "Ask the ledger what rules would have said."),
                },
            ),
            "token": Command(
                "service_kit.access.token_command:token",
                "Make a token, and the table that lets it in.",
                {"variable": "GATEWAY_TOKENS_FILE", "roles": ("caller", "approver", "admin")},
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
