"""Puts streamed tool calls together. OpenAI's rule is simple: fragments with the same index are one call.

Servers that speak OpenAI's format break it in these ways, each of them seen:
- no index at all (whole calls, or fragments in order);
- the index 0 for every call, where only a new id begins a new call (vLLM's older parsers, SGLang);
- id and name again in every fragment (SGLang), or an empty id in all but the first (vLLM);
- another id in every fragment of one call;
- the name once more at the end, or the whole call once more;
- whole calls without ids, all with the index 0;
- a name in pieces;
- arguments as an object instead of text, indexes and ids as text or number.

At an index that already has a call, or without an index, another call begins only with arguments, and only if the call
before it is complete or has another name: a call that nobody asked for would run a tool.
"""

from dataclasses import dataclass, field

from gateway_svc.engines.wire.encoding import encode, parse_arguments
from gateway_svc.engines.wire.fields import Fields, fields, maybe_count, text
from service_kit.bounds import ARGUMENTS, CALLS, FRAGMENTS, REREAD, Tally


@dataclass(slots=True, eq=False)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    announced: tuple[str, str] | None = None
    """Id and name of a call that may follow at this index, if arguments for it come."""
    depth: int = 0
    """How many brackets are open in the arguments."""
    in_string: bool = False
    escape: str = ""
    """A backslash at their end that escapes what comes next."""

    def write(self, piece: str) -> None:
        """Adds to the arguments."""
        self.arguments.append(piece)
        text = self.escape + piece
        self.escape = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
        parts = text.removesuffix(self.escape).replace("\\\\", "").replace('\\"', "").split('"')
        outside = "".join(parts[self.in_string :: 2])
        self.depth += outside.count("{") + outside.count("[") - outside.count("}") - outside.count("]")
        self.in_string ^= len(parts) % 2 == 0

    def clear(self) -> None:
        """Takes the arguments back."""
        self.arguments, self.depth, self.in_string, self.escape = [], 0, False, ""

    def written(self) -> str:
        self.arguments = ["".join(self.arguments)]
        return self.arguments[0].strip()

    def ends_as_whole(self) -> bool:
        """Whether they may be whole, without reading them again: no string and no bracket is open."""
        if self.in_string or self.depth:
            return False
        last = next((piece for piece in reversed(self.arguments) if piece.strip()), "")
        return last.rstrip().endswith("}")


class CallAssembler:
    """Takes the fragments of one answer in the order in which they come."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def add(self, fragment: Fields) -> int:
        """Takes one element of delta.tool_calls; returns the number of its call.

        Raises ValueError if it is not one, Exceeded.
        """
        self._tally.add(FRAGMENTS)
        function = fields(fragment.get("function"))
        given, name, index = text(fragment.get("id")), text(function.get("name")), maybe_count(fragment.get("index"))
        written = function.get("arguments")
        arguments = encode(written).decode() if isinstance(written, dict | list) else text(written)
        self._tally.add(ARGUMENTS, len(arguments))
        call = self._call_at(index, given, name)
        if call is None:
            call = self._begin(index, given, name)
        elif _is_piece_of_name(call, given, name) and (call.id or not arguments.strip()):
            call.name += name  # a name in pieces; if they are two calls, no tool has the joined name
        elif (given or name) and not arguments.strip():
            if _differs(call, given, name):
                call.announced = given, name or call.name
        elif arguments:
            if self._repeats(call, index, given, name, arguments):
                return self._calls.index(call)
            call = self._following(call, index, given, name)
        if arguments.lstrip().startswith("{") and call.written() == "{}":
            call.clear()  # some proxies begin with an empty object, and then send the true one
        call.id, call.name = call.id or given, call.name or name
        call.write(arguments)
        return self._calls.index(call)

    def calls(self) -> list[tuple[str, str, str]]:
        """The id, name and arguments of each call. One that has only a name gets `{}`: some models write nothing for a
        tool without parameters, which is valid if the answer is known to be complete.
        """
        told = [call for call in self._calls if call.name or call.written()]
        return [(call.id, call.name, call.written() or "{}") for call in told]

    def _call_at(self, index: int | None, given: str, name: str) -> _Call | None:
        """The open call at a fragment's index; None if there is none."""
        latest = self._calls[-1] if self._calls else None
        if index is None:
            return latest
        if index in self._by_index:
            return self._by_index[index]
        if name or (given and (latest is None or latest.id)):
            return None  # a new index begins a call
        if latest is not None:
            self._by_index[index] = latest
        return latest

    def _begin(self, index: int | None, given: str, name: str) -> _Call:
        self._tally.add(CALLS)
        call = _Call(given, name)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _following(self, call: _Call, index: int | None, given: str, name: str) -> _Call:
        """The call that arguments belong to, at another call's index."""
        head = (given, name) if name and _differs(call, given, name) else call.announced
        if head is None and given and given != call.id and self._is_whole(call):
            head = given, name or call.name
        if head is None and name and not given and self._is_whole(call):
            head = given, name
        if head is None or not ((call.name and head[1] != call.name) or self._is_whole(call)):
            return call
        return self._begin(index, *head)

    def _repeats(self, call: _Call, index: int | None, given: str, name: str, arguments: str) -> bool:
        """Whether a fragment repeats a whole call."""
        if not name or given != call.id or not (given or index is not None):
            return False
        return self._is_whole(call) and arguments.strip() == call.written()

    def _is_whole(self, call: _Call) -> bool:
        """Whether the arguments so far are complete. Each check reads them again, so that is bounded."""
        if not call.ends_as_whole():
            return False
        written = call.written()
        self._tally.add(REREAD, len(written))
        return parse_arguments(written) is not None


def _is_piece_of_name(call: _Call, given: str, name: str) -> bool:
    return bool(name and call.name and name != call.name) and given in ("", call.id) and not call.written()


def _differs(call: _Call, given: str, name: str) -> bool:
    return bool((given and given != call.id) or (name and call.name and name != call.name))
