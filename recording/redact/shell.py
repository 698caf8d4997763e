"""A tokenizer for shell commands, just good enough to tell commands from content: words, operators, here-documents."""

import re
from typing import Literal, NamedTuple

# Deeper than anybody writes, and well within Python's stack.
_DEEPEST = 20

_BLANKS = re.compile(r"[^\S\n]+")
_PLAIN = re.compile(r"[^\s'\"\\$;&|<>()#]+")
_OPERATOR = re.compile(r"<<<|<<-?|&>>?|[<>]&|>>|>\||\|\||&&|;;|\$\((?!\()|[;&|<>()\n]")
_SUBSTITUTION = re.compile(r"\$\((?!\()")
_ARITHMETIC = re.compile(r"\(\([^\n'\"]{0,200}?\)\)")
_IN_DOUBLE_QUOTES = re.compile(r"[\"\\`]|\$\(")
_IN_DOLLAR_QUOTES = re.compile(r"(?:[^'\\]|\\[\s\S])*+'?")


class Token(NamedTuple):
    """A part of a command."""

    kind: Literal["word", "operator", "comment", "heredoc"]
    start: int
    end: int
    literal_start: int = -1
    """Where the word's longest quoted part begins; -1 if none is quoted."""
    literal_end: int = -1


class Scanner:
    """Reads a command from left to right as bash does. What is opened and never closed extends to the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0

    def tokens(self) -> list[Token]:
        """The command's tokens, without the white space between them."""
        return self._scan(0, nested=False)[0]

    def _scan(self, position: int, *, nested: bool) -> tuple[list[Token], int]:
        """Tokens from position to the end, or if nested to the closing parenthesis; and the position after them."""
        text = self._text
        tokens: list[Token] = []
        heredocs: list[tuple[str, bool]] = []
        parentheses = 0
        while position < len(text):
            if blanks := _BLANKS.match(text, position):
                position = blanks.end()
            elif text[position] == "#":
                end = _find(text, "\n", position)
                tokens.append(Token("comment", position, end))
                position = end
            elif operator := _OPERATOR.match(text, position):
                if arithmetic := _ARITHMETIC.match(text, position):  # its << is no here-document
                    position = arithmetic.end()
                    continue
                sign, position = operator.group(), operator.end()
                if sign == ")" and nested and parentheses == 0:
                    return tokens, position
                parentheses += (sign in ("(", "$(")) - (sign == ")")
                tokens.append(Token("operator", operator.start(), position))
                if sign in ("<<", "<<-"):
                    blanks = _BLANKS.match(text, position)
                    word = self._word(blanks.end() if blanks else position)
                    heredocs.append((re.sub(r"['\"\\]", "", text[word.start : word.end]), sign == "<<-"))
                    tokens.append(word)
                    position = word.end
                elif sign == "\n":
                    for delimiter, tabs in heredocs:
                        end = self._heredoc_end(position, delimiter, tabs=tabs)
                        tokens.append(Token("heredoc", position, end))
                        position = _find(text, "\n", end)
                        position += position < len(text)
                    heredocs.clear()
            else:
                word = self._word(position)
                tokens.append(word)
                position = word.end
        return tokens, position

    def _word(self, start: int) -> Token:
        text = self._text
        position, literal = start, (-1, -1)
        while position < len(text):
            character = text[position]
            if character in "'\"" or text.startswith(("$'", '$"'), position):
                end = self._literal_end(position)
                literal = max(literal, (position, end), key=lambda piece: piece[1] - piece[0])
                position = end
            elif character == "\\":
                position += 2
            elif character == "$" and (arithmetic := _ARITHMETIC.match(text, position + 1)):
                position = arithmetic.end()
            elif character in "$#" and not _SUBSTITUTION.match(text, position):
                position += 1
            elif plain := _PLAIN.match(text, position):
                position = plain.end()
            else:
                break
        return Token("word", start, min(position, len(text)), *literal)

    def _literal_end(self, start: int) -> int:
        text = self._text
        if text.startswith("$'", start):
            quoted = _IN_DOLLAR_QUOTES.match(text, start + 2)
            return quoted.end() if quoted else len(text)
        if text[start] == "'":
            return min(_find(text, "'", start + 1) + 1, len(text))
        position = text.index('"', start) + 1
        while found := _IN_DOUBLE_QUOTES.search(text, position):
            position = found.end()
            if found.group() == '"':
                return position
            if found.group() == "\\":
                position += 1
            elif found.group() == "`":
                position = min(_find(text, "`", position) + 1, len(text))
            elif self._depth == _DEEPEST:
                return len(text)
            else:
                self._depth += 1
                position = self._scan(position, nested=True)[1]
                self._depth -= 1
        return len(text)

    def _heredoc_end(self, position: int, delimiter: str, *, tabs: bool) -> int:
        """The start of the line that closes a here-document."""
        while position < len(self._text):
            line_end = _find(self._text, "\n", position)
            line = self._text[position:line_end]
            if (line.lstrip("\t") if tabs else line) == delimiter:
                return position
            position = line_end + 1
        return len(self._text)


def _find(text: str, sign: str, position: int) -> int:
    """The next position of sign, or the end of the text."""
    found = text.find(sign, position)
    return found if found >= 0 else len(text)
