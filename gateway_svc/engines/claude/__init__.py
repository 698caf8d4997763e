"""The engine claude: runs Claude's command-line agent as a process, and turns its JSON lines into events and rows.

| module       | what it knows                                                     |
|--------------|-------------------------------------------------------------------|
| runner       | the Runner protocol: which process a turn needs                   |
| command      | options and environment                                           |
| isolation    | what keeps the workspace from being configuration                 |
| prompt       | the input, which is never a command                               |
| process      | the process, its lines, its end                                   |
| run          | one process from start to rows                                    |
| stream       | the kinds of lines                                                |
| lines        | reading their fields, each by itself                              |
| speech       | the text that the client has been sent, and what is still missing |
| conversation | our transcript                                                    |
| calls        | tool calls: events and audit rows                                 |
| streamed_calls | tool calls whose own line cannot be read                        |
| background   | tasks that still run after a result                               |
| outcomes     | how a tool call ended, by its result                              |
| bill         | cost rows                                                         |
| usage        | tokens and cost as the program reports them                       |
| failures     | stop reasons and errors                                           |
| limits       | the account's limits, and how much of them is used                |
| memory       | the program's session ids, and how much of a session it knows     |
| record       | what the record offers, passed in                                 |
| settings     | its settings, and the engine's kind                               |

Nothing here imports recording: a deployment without it, or with GATEWAY_AUDIT_CLAUDE off, does not load it.
"""

from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.claude.runner import ClaudeRunner
from gateway_svc.engines.claude.settings import KIND

__all__ = ["KIND", "ClaudeAudit", "ClaudeRunner"]
