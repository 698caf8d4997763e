"""Puts streamed tool calls together. OpenAI's rule is simple: fragments with the same index are one call.

Servers that speak OpenAI's format break it in these ways, each of them seen:
- no index at all (whole calls, or fragments in order);
- the index 0 for every call, where only a new id begins a new call (vLLM's older parsers, SGLang);
- id and name again in every fragment (SGLang), or an empty id in all but the first (vLLM);
- another id in every fragment of one call;
- the name once more at the end, or the whole call once more, also at another index (LocalAI, new-api);
- all arguments so far in each fragment (DeepSeek behind Qianfan), or all of them once more at the end;
- calls in turn, told apart by their ids alone;
- whole calls without ids, all with the index 0;
- a name in pieces;
- arguments as an object instead of text, indexes and ids as text or number, name and arguments beside `function`, the
  word null for a name.

At an index that already has a call, or without an index, another call begins only with arguments, and only if the call
before it is complete or has another name, or another id comes with a name and the beginning of an object: a call that
nobody asked for would run a tool.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

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
    last: str = ""
    """The latest piece that is not blank."""
    grows: bool = True
    """Whether each piece has begun with the one before it."""

    def write(self, piece: str) -> None:
        """Adds to the arguments."""
        self.arguments.append(piece)
        if stripped := piece.strip():
            self.grows &= stripped.startswith(self.last)
            self.last = stripped
        text = self.escape + piece
        self.escape = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
        parts = text.removesuffix(self.escape).replace("\\\\", "").replace('\\"', "").split('"')
        outside = "".join(parts[self.in_string :: 2])
        self.depth += outside.count("{") + outside.count("[") - outside.count("}") - outside.count("]")
        self.in_string ^= len(parts) % 2 == 0

    def clear(self) -> None:
        """Takes the arguments back."""
        self.arguments, self.depth, self.in_string, self.escape = [], 0, False, ""
        self.last, self.grows = "", True

    def written(self) -> str:
        self.arguments = ["".join(self.arguments)]
        return self.arguments[0].strip()

    def told(self) -> str:
        """The arguments without what was sent again: all so far in each piece, or all once more at the end."""
        written, last = self.written(), self.last
        if last == written or not self.last_is_object() or parse_arguments(written) is not None:
            return written
        held = parse_arguments(last)
        again = held is not None and (self.grows or held == parse_arguments(written.removesuffix(last)))
        return last if again else written

    def last_is_object(self) -> bool:
        """Whether the latest piece may be all of them."""
        return self.last.startswith("{") and self.last.endswith("}")

    def ends_as_whole(self) -> bool:
        """Whether they may be whole, without reading them again: no string and no bracket is open."""
        if self.in_string or self.depth:
            return False
        last = next((piece for piece in reversed(self.arguments) if piece.strip()), "")
        return last.rstrip().endswith("}")


@dataclass
class Told:
    """A call of an answer."""

    number: int
    """As CallAssembler.add() gave it."""
    id: str
    name: str
    arguments: str

    def takes(self, later: "Told") -> bool:
        """Takes a later call with the same id if it is this one, told again; False if it is another."""
        if self.name and later.name and self.name != later.name:
            return False
        if self._held and later._held and self._held != later._held:
            return False
        if later._held and not self._held:
            self.arguments, self._held = later.arguments, later._held
        self.name = self.name or later.name
        return True

    @cached_property
    def _held(self) -> str:
        """What the arguments say, however they are written; empty if that is nothing, or they are not whole."""
        held = parse_arguments(self.arguments)
        return json.dumps(held, sort_keys=True) if held else ""


class CallAssembler:
    """Takes the fragments of one answer in the order in which they come."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def __bool__(self) -> bool:
        """Whether any call has arguments."""
        return any(call.last for call in self._calls)

    def add(self, fragment: Fields) -> int:
        """Takes one element of delta.tool_calls; returns the number of its call.

        Raises ValueError if it is not one, Exceeded.
        """
        self._tally.add(FRAGMENTS)
        function = fields(fragment.get("function")) or fragment
        given, name, index = _word(fragment.get("id")), _word(function.get("name")), maybe_count(fragment.get("index"))
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
            call = self._following(call, index, given, name, begins=arguments.lstrip().startswith("{"))
        if arguments.lstrip().startswith("{") and call.written() == "{}":
            call.clear()  # some proxies begin with an empty object, and then send the true one
        call.id, call.name = call.id or given, call.name or name
        if call.id:
            self._by_id.setdefault(call.id, call)
        call.write(arguments)
        return self._calls.index(call)

    def calls(self) -> list[tuple[str, str, str]]:
        """The id, name and arguments of each call. One that has only a name gets `{}`: some models write nothing for a
        tool without parameters, which is valid if the answer is known to be complete.
        """
        return [(told.id, told.name, told.arguments or "{}") for told in self.told()]

    def told(self) -> list[Told]:
        """Each call once, though a server may have told it at several places with one id."""
        by_id: dict[str, list[Told]] = defaultdict(list)
        for number, call in enumerate(self._calls):
            told = Told(number, call.id, call.name, call.told())
            alike = by_id[call.id or f"without an id: {number}"]
            if (told.name or told.arguments) and not any(earlier.takes(told) for earlier in alike):
                alike.append(told)
        return sorted(chain.from_iterable(by_id.values()), key=lambda told: told.number)

    def _call_at(self, index: int | None, given: str, name: str) -> _Call | None:
        """The open call at a fragment's index; None if there is none."""
        latest = self._calls[-1] if self._calls else None
        here = latest if index is None else self._by_index.get(index)
        elsewhere = not name if here is None else here.id not in ("", given)
        if elsewhere and (named := self._by_id.get(given)) and not self._is_whole(named):
            return named
        if index is None or here is not None:
            return here
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

    def _following(self, call: _Call, index: int | None, given: str, name: str, *, begins: bool) -> _Call:
        """The call that arguments belong to, at another call's index; begins says that they may be the first ones."""
        head = (given, name) if name and _differs(call, given, name) else call.announced
        if given and given == call.id and not name:
            head = None
        if head is None and given and given != call.id and self._is_whole(call):
            head = given, name or call.name
        if head is None and name and not given and self._is_whole(call):
            head = given, name
        if head is None:
            return call
        is_another = (call.name and head[1] != call.name) or (
            begins and name and call.id and given not in ("", call.id)
        )
        return self._begin(index, *head) if is_another or self._is_whole(call) else call

    def _repeats(self, call: _Call, index: int | None, given: str, name: str, arguments: str) -> bool:
        """Whether a fragment repeats a whole call."""
        if not name or given not in ("", call.id) or not (call.id or index is not None):
            return False
        return self._is_whole(call) and parse_arguments(arguments) == parse_arguments(call.told())

    def _is_whole(self, call: _Call) -> bool:
        """Whether the arguments so far are complete. Each check reads them again, so that is bounded."""
        if not (call.ends_as_whole() or (call.grows and call.last_is_object())):
            return False
        self._tally.add(REREAD, len(call.written()))
        return parse_arguments(call.told()) is not None


def _word(value: object) -> str:
    """An id or a name. Null may have become a word on the way."""
    word = text(value)
    return "" if word in ("null", "None") else word


def _is_piece_of_name(call: _Call, given: str, name: str) -> bool:
    return bool(name and call.name and name != call.name) and given in ("", call.id) and not call.written()


def _differs(call: _Call, given: str, name: str) -> bool:
    return bool((given and given != call.id) or (name and call.name and name != call.name))
