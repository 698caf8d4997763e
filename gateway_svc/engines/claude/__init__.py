"""The engine claude: Claude's command-line agent as a process, its stream of JSON lines told and recorded as turns are.

| module       | what it knows                                                     |
|--------------|-------------------------------------------------------------------|
| runner       | the Runner protocol: which process a turn needs                   |
| command      | options and environment                                           |
| isolation    | what keeps the workspace from being configuration                 |
| prompt       | the input, which is never a command                               |
| process      | the process, its lines, its end                                   |
| run          | one process from start to rows                                    |
| stream       | the kinds of lines                                                |
| lines        | reading of their fields, each by itself                           |
| speech       | what the client has heard, and what is still to be told           |
| conversation | our transcript                                                    |
| calls        | tool calls: events and audit rows                                 |
| streamed_calls | tool calls whose own line cannot be read                        |
| background   | what works on behind a result                                     |
| outcomes     | what a result says                                                |
| bill         | cost rows                                                         |
| usage        | tokens and money as the program tells them                        |
| failures     | stop reasons and errors                                           |
| limits       | how near the account's limits are                                 |
| memory       | the program's session ids, and what it has to be told             |
| record       | what the record offers, passed in                                 |
| settings     | what a deployment says of it, and the engine's kind               |

Nothing here imports recording: a deployment without it, or with GATEWAY_AUDIT_CLAUDE off, does not load it.
"""

from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.claude.runner import ClaudeRunner
from gateway_svc.engines.claude.settings import KIND

__all__ = ["KIND", "ClaudeAudit", "ClaudeRunner"]
