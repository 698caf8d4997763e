"""Puts streamed tool calls together. OpenAI's rule is simple: fragments with the same index are one call.

Servers that speak OpenAI's format break it in these ways, each of them seen:
- no index at all (whole calls, or fragments in order);
- the index 0 for every call, a new id telling that a new call begins (vLLM's older parsers, SGLang);
- id and name again in every fragment (SGLang), or an empty id in all but the first (vLLM);
- whole calls without ids, all with the index 0;
- arguments as an object instead of text.
"""

from dataclasses import dataclass, field

from gateway_svc.engines.wire.encoding import encode, parse_arguments
from gateway_svc.engines.wire.fields import Fields, fields, text


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def is_whole(self) -> bool:
        return parse_arguments("".join(self.arguments)) is not None


class CallAssembler:
    """Takes the fragments of one answer in the order in which they come."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def add(self, fragment: Fields) -> None:
        """Takes one element of delta.tool_calls. Raises ValueError where it is none."""
        function = fields(fragment.get("function"))
        given, name, index = text(fragment.get("id")), text(function.get("name")), fragment.get("index")
        call = self._open_call(index, given, name)
        if call is None:
            call = _Call()
            self._calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        call.id = call.id or given
        call.name = call.name or name
        arguments = function.get("arguments")
        call.arguments.append(encode(arguments).decode() if isinstance(arguments, dict) else text(arguments))

    def calls(self) -> list[tuple[str, str, str]]:
        """The id, name and arguments of each call."""
        # a tool without parameters is called with no text at all by some models
        return [(call.id, call.name, "".join(call.arguments).strip() or "{}") for call in self._calls]

    def _open_call(self, index: object, given: str, name: str) -> _Call | None:
        """The call that a fragment goes on with; None where it begins one."""
        if isinstance(index, int) and index not in self._by_index and name:
            return None
        latest = self._calls[-1] if self._calls else None
        call = self._by_index.get(index, latest) if isinstance(index, int) else latest
        if call is None or (given and call.id and given != call.id):
            return None
        if name and not given and call.name and (name != call.name or call.is_whole()):
            return None
        return call
