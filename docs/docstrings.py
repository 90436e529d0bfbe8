"""Docstrings in plain text with `names`, as reStructuredText or Markdown."""

import inspect
import re
import types
from typing import Union, get_args, get_origin

from type_words import type_text

from vaelab.runs.validation import parameters

LITERAL = re.compile(r"(`+)(.+?)\1", re.DOTALL)
FIELD = re.compile(r"\s*(:[a-z]+(?: [^:]*)?:|\.\. .*)")
ENUMERATOR = re.compile(r"^(\s*(?:\w|\d+|[ivx]+))([.)])(?=\s|$)")
"""The start of a list as reStructuredText sees it, such as `K.` in a sentence."""
VALUE = r"(?:\[[^\]]*\]|\{[^}]*\}|[^\s,;]*[^\s,;.:)])"
COMMAND = re.compile(
    rf"python \w+\.py [^\n]*?(?=\.?$)|(?<![\w.])[a-z_][\w./]*={VALUE}(?: [a-z_][\w./]*={VALUE})*",
    re.MULTILINE,
)
"""A command to the end of its line, or settings one after the other."""
LINKS = {
    r"arXiv:(?:\w+/)?\d[\d.]*\d": "https://arxiv.org/abs/{}",
    r"openreview\.net/forum\?id=[\w-]+": "https://{}",
}


COLON = "\ue000"
"""Stands for a colon in the docstring of an attribute, at which napoleon would look for a type."""


def hide_colons(app, what, name, found, options, lines):
    """Called by autodoc before napoleon: replaces the colons in docstrings of attributes."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", COLON) for line in lines]


def escape_docstring(app, what, name, found, options, lines):
    """Called by autodoc after napoleon: makes lines reStructuredText, and adds types in words.

    Changes `lines` in place: only names in backquotes, links and napoleon's fields are marked up.
    """
    lines[:] = to_rest([line.replace(COLON, ":") for line in lines])
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return
    for name, annotation in parameters(found)[0].items():
        for i, line in enumerate(lines):
            if line.startswith(f":param {name}:") and (words := type_of(annotation)):
                lines.insert(i, f":type {name}: {words.replace('`', '``')}")
                break


def type_of(annotation):
    """Returns an annotation in words, or the names of its classes; empty if a part has neither."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [type_of(part) for part in get_args(annotation)]
        return " or ".join(dict.fromkeys(parts)) if all(parts) else ""
    owner = get_origin(annotation) or annotation
    is_named = inspect.isclass(owner) and owner is not inspect.Parameter.empty
    return type_text(annotation) or (owner.__name__ if is_named else "")


def to_rest(lines):
    """Returns lines of plain text, and of napoleon's fields, as lines of reStructuredText."""
    found, blocks = [], [[]]
    for line in "\n".join(lines).split("\n"):
        if not line.strip():
            blocks.append([])
        else:
            blocks[-1].append(line)
    for block in filter(None, blocks):
        found += [*rest_block(block), ""]
    return found


def rest_block(lines):
    """Returns the lines of a block without empty ones, escaped; indented only below a field."""
    heads, bodies, in_field = [], [], False
    for line in lines:
        mark = FIELD.match(line)
        in_field = bool(mark) or (in_field and line[:1] == " ")
        heads.append(mark[0] if mark else "")
        bodies.append(line[len(heads[-1]) :] if in_field else line.strip())
    escaped = escape("\n".join(bodies), "``", rest_link).split("\n")
    escaped = [ENUMERATOR.sub(r"\1\\\2", body) for body in escaped]
    return [head + body for head, body in zip(heads, escaped, strict=True)]


def to_markdown(text):
    """Returns paragraphs of plain text as Markdown, a line each."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return escape("\n\n".join(paragraphs), "`", lambda words, address: f"[{words}]({address})")


def quote_commands(text):
    """Returns plain text with the commands and settings in it in backquotes."""
    return text if "`" in text else COMMAND.sub(r"`\g<0>`", text)


def escape(text, quote, link):
    """Returns text with what is special outside literals escaped, and papers as links.

    Args:
        text: Plain text with names in backquotes.
        quote: What is around a literal.
        link: From words and an address to a link.
    """
    parts, end = [], 0
    for literal in LITERAL.finditer(text):
        parts.append(escape_plain(text[end : literal.start()], link))
        parts.append(f"{quote}{literal[2]}{quote}")
        end = literal.end()
    return "".join([*parts, escape_plain(text[end:], link)])


def escape_plain(text, link):
    """Returns text without literals, escaped and with links; see `escape`."""
    pattern = "|".join(LINKS)
    parts, end = [], 0
    for paper in re.finditer(pattern, text):
        parts.append(escape_letters(text[end : paper.start()]))
        parts.append(link(paper[0], address_of(paper[0])))
        end = paper.end()
    return "".join([*parts, escape_letters(text[end:])])


def escape_letters(text):
    """Returns text with the letters escaped that begin emphasis, references and the like."""
    return re.sub(r"([\\*_|])", r"\\\1", text)


def address_of(paper):
    """Returns the address of a paper, of what `LINKS` finds."""
    for pattern, address in LINKS.items():
        if re.fullmatch(pattern, paper):
            return address.format(paper.removeprefix("arXiv:"))
    return None


def rest_link(words, address):
    """Returns an anonymous link in reStructuredText."""
    return f"`{words} <{address}>`__"
