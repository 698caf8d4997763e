"""What is in a page and people do not see: text that styles hide, and characters that show nothing.

A page's author may write there to a model alone. What a style sheet or a script hides is not known here.
"""

import re

_STYLE = re.compile(r"""(\sstyle\s{0,5}=\s{0,5})("[^"]{0,4000}"|'[^']{0,4000}')""", re.IGNORECASE)
_HIDDEN = '"display:none"'
_NUMBER = re.compile(r"-?[\d.]{1,20}")
_FAR = -500
"""In pixels, points or what else: whoever places a text so far away hides it."""
_WHITE = frozenset({"white", "#fff", "#ffffff", "rgb(255,255,255)"})
_TRANSPARENT = re.compile(r"transparent|(rgb|hsl)a\(.{0,60},0(\.0*)?%?\)|#[0-9a-f]{3}0|#[0-9a-f]{6}00")
_CLIPPED = re.compile(r"rect\((0|1px)[\s,](0|1px)|inset\((50|100)%|circle\(0")
SELECTORS = ['[aria-hidden="true"]']
"""Elements that screen readers pass over; the converter itself drops those that are `hidden`."""
WHITE_TEXT = "[The page has text in white, which people may not see.]"
_INVISIBLE = {
    code: None
    for codes in (
        (*range(9), 0xB, 0xC, *range(0xE, 0x20), *range(0x7F, 0xA0)),  # control characters, but for tab and line ends
        (0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF),
        (*range(0xFE00, 0xFE0E), *range(0xFFF0, 0xFFFC), *range(0xE0000, 0xE1000)),  # selectors, tags
    )
    for code in codes
}
"""Zero-width joiners are not among them, nor what makes an emoji: scripts and emoji need these."""


def without_invisible(text: str) -> str:
    """The text without control, zero-width, bidirectional and tag characters."""
    return text.translate(_INVISIBLE)


def hide(html: str) -> tuple[str, bool]:
    """The page, where the converter takes what its own styles hide as hidden; and whether some text is white."""
    is_white = False

    def look(found: re.Match[str]) -> str:
        nonlocal is_white
        style = _declarations(found[2][1:-1])
        is_white |= style.get("color") in _WHITE and not any(name.startswith("background") for name in style)
        return found[1] + _HIDDEN if _hides(style) else found[0]

    return _STYLE.sub(look, html), is_white


def _declarations(style: str) -> dict[str, str]:
    parts = (part.partition(":") for part in style.lower().split(";"))
    return {name.strip(): "".join(value.replace("!important", "").split()) for name, _, value in parts}


def _hides(style: dict[str, str]) -> bool:
    color = style.get("color", "")
    backgrounds = (style.get("background-color"), style.get("background"))
    return (
        (color != "" and (_same(color) in map(_same, filter(None, backgrounds)) or bool(_TRANSPARENT.fullmatch(color))))
        or any(_number(style.get(name)) == 0 for name in ("opacity", "font-size", "max-height", "zoom"))
        or any(
            _number(style.get(name)) < _FAR for name in ("left", "right", "top", "bottom", "text-indent", "margin-left")
        )
        or bool(_CLIPPED.match(style.get("clip", "") + style.get("clip-path", "")))
        or style.get("transform", "").startswith("scale(0)")
    )


def _same(color: str) -> str:
    return "white" if color in _WHITE else color


def _number(value: str | None) -> float:
    """The number that a value begins with; 1 where there is none."""
    found = _NUMBER.match(value or "")
    try:
        return float(found[0]) if found else 1.0
    except ValueError:
        return 1.0
