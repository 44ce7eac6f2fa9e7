"""SQL text cut into its statements, for connections on which they run one by one.

Follows psql: a semicolon ends a statement unless it stands in a literal, a quoted name, a dollar
quote, a comment, parentheses, or the body of `create function ... begin atomic`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PIECE = re.compile(
    r"""
      (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<escaped>(?<!\w)[eE]'(?:[^'\\]|\\.|'')*(?:'|$))
    | (?P<literal>'(?:[^']|'')*(?:'|$))
    | (?P<name>"(?:[^"]|"")*(?:"|$))
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d\w*)
    | (?P<mark>[();])
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_ROUTINES = frozenset({"function", "procedure"})


def statements(text: str) -> Iterator[str]:
    """Yield the statements of `text` in order, without their semicolons.

    Empty ones are left out.
    """
    start = position = 0
    depth = blocks = 0
    words: list[str] = []
    said = False
    while (match := _PIECE.search(text, position)) is not None:
        said = said or bool(text[position : match.start()].strip())
        position = match.end()
        match match.lastgroup:
            case "comment":
                continue
            case "block":
                position = _end_of_comment(text, position)
                continue
            case "dollar":
                end = text.find(match[0], position)
                position = len(text) if end < 0 else end + len(match[0])
            case "word":
                word = match[0].lower()
                if len(words) < 8 or word in ("begin", "case", "end", "atomic"):
                    words.append(word)
                routine = words[0] == "create" and not _ROUTINES.isdisjoint(words[:4])
                if routine and word == "atomic" and words[-2:-1] == ["begin"]:
                    blocks = 1
                elif blocks and word == "case":
                    blocks += 1
                elif blocks and word == "end":
                    blocks -= 1
            case "mark" if match[0] == "(":
                depth += 1
            case "mark" if match[0] == ")":
                depth = max(depth - 1, 0)
            case "mark" if depth == 0 and blocks == 0:
                if said:
                    yield text[start : match.start()].strip()
                start, words, said = position, [], False
                continue
        said = True
    if said or text[position:].strip():
        yield text[start:].strip()


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    while depth and (match := _COMMENT_MARK.search(text, position)) is not None:
        depth += 1 if match[0] == "/*" else -1
        position = match.end()
    return len(text) if depth else position
