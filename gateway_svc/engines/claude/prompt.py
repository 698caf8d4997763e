"""The line that passes the input of a turn to Claude's program.

The program looks for commands (`/clear`), files (`@name`) and words that change how it works in the last text of a
message, and in no other. So the last text is always a sentence of ours, after what a client wrote.
"""

from typing import Any

from gateway_svc.engines.claude.memory import as_text
from gateway_svc.messages import UserMessage
from gateway_svc.turns.turn import Turn

BEFORE = "This was said before, while you were not there:"
ANSWER = "This is the end of the user's message. Answer it."
GO_ON = "Go on with this task."
NOTHING = "(The message is empty.)"


def prompt(turn: Turn, known_messages: int) -> dict[str, Any]:
    """The user's input, after the part of the conversation that the program does not know."""
    *earlier, last = turn.history
    asked = isinstance(last, UserMessage)
    told = as_text((earlier if asked else turn.history)[known_messages:])
    texts = [f"{BEFORE}\n\n{told}"] if told else []
    if isinstance(last, UserMessage):
        # the Messages API refuses blank text
        texts += [last.text if last.text.strip() else NOTHING, ANSWER]
    else:
        # in the middle of another engine's turn, the task is in the earlier messages
        texts.append(GO_ON)
    message = {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}
    return {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": ""}
