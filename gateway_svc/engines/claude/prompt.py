"""The line that gives Claude's program the input of a turn.

The program reads commands (`/clear`), files (`@name`) and words that change how it works out of the last text of a
message, and of no other. So the last text is always a sentence of ours, and what a client wrote stands before it.
"""

from typing import Any

from gateway_svc.engines.claude.memory import retell
from gateway_svc.messages import UserMessage
from gateway_svc.turns.turn import Turn

BEFORE = "This was said before, while you were not there:"
ANSWER = "This is the end of the user's message. Answer it."
GO_ON = "Go on with this task."
NOTHING = "(The message is empty.)"


def prompt(turn: Turn, known_messages: int) -> dict[str, Any]:
    """The user's input, behind what the program does not know of the conversation."""
    *earlier, last = turn.history
    asked = isinstance(last, UserMessage)
    told = retell((earlier if asked else turn.history)[known_messages:])
    texts = [f"{BEFORE}\n\n{told}"] if told else []
    if isinstance(last, UserMessage):
        # the Messages API refuses a text of blanks alone
        texts += [last.text if last.text.strip() else NOTHING, ANSWER]
    else:
        # in the middle of a turn that another engine began, the task is in what was said before
        texts.append(GO_ON)
    message = {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}
    return {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": ""}
