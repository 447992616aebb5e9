"""Sentences of Wikipedia articles, from the small dump that gensim carries for its own tests."""

from __future__ import annotations

import bz2
import importlib.util
import re
from pathlib import Path
from typing import Any

from tutelage.errors import DataError
from tutelage.transfer.base import Rows, Source

__all__ = ["WikipediaSentences", "gensim_file"]

_DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_INSTALL = "pip install --no-deps gensim==4.4.0 && pip install scipy smart_open wrapt"

# Sections without running prose: the article is cut at the first.
_TAIL = re.compile(
    r"^==+\s*(references|notes|footnotes|external links|further reading|see also|bibliography|"
    r"sources|works cited|citations|notes and references|references and notes)\s*==+\s*$",
    re.IGNORECASE | re.MULTILINE,
)
# What filter_wiki would leave behind, removed before it.
_REMOVED = re.compile(
    r"<!--.*?-->|<ref[^>/]*/>|<ref[^>]*>.*?</ref>|<(gallery|timeline|math|source|pre|code|table)\b.*?</\1>",
    re.IGNORECASE | re.DOTALL,
)
_GAP = "\ue000"
"""Stands where a template was; a sentence that still has it is dropped."""
_INLINE = re.compile(r"\{\{\s*(?:lang\|[^|{}]*|nowrap|nihongo|transl\|[^|{}]*)\|([^|{}]*)[^{}]*\}\}", re.IGNORECASE)
_DASH = re.compile(r"\{\{\s*(?:spaced ?)?(?:en|em|n|m)?dash\s*\}\}", re.IGNORECASE)
_CONVERT = re.compile(r"\{\{\s*(?:convert|cvt)\|([\d.,]+)\|([^|{}]+)[^{}]*\}\}", re.IGNORECASE)
_CITE = re.compile(
    r"\{\{\s*(?:cite|citation|cn|fact|refn?|sfnp?|harv\w*|r|rp|efn|by whom|who|when|which|clarify|"
    r"dubious|page needed|verify|see|main|further|update|dead link|failed)\b[^{}]*\}\}",
    re.IGNORECASE,
)
_ALONE = re.compile(r"^[ \t]*\{\{[^{}]*\}\}[ \t]*$", re.MULTILINE)
_OTHER = re.compile(r"\{\{[^{}]*\}\}")
_MEDIA = re.compile(r"\[\[\s*(?:file|image|category)\s*:(?:[^\[\]]|\[\[[^\[\]]*\]\]|\[[^\[\]]*\])*\]\]", re.IGNORECASE)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Col|Lt|Capt|Sgt|Rev|Hon|Sen|Rep|Gov|Pres|Mt|Ft|No|"
    r"Nos|vs|v|c|ca|cf|al|etc|e\.g|i\.e|eg|ie|viz|no|approx|fig|Figs?|vol|Vols?|pp?|ed|eds|trans|"
    r"b|d|r|fl|Ave|Inc|Ltd|Co|Corp|Bros|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|"
    r"U\.S|U\.K|U\.N|B\.C|A\.D|a\.m|p\.m|Ph\.D))\.$"
)
_END = re.compile(r"(?<=[.!?])(?:[\"'\u201d\u2019)]{0,2})\s+(?=[\"'\u201c\u2018(]?[A-Z0-9])")
_RESIDUE = re.compile(
    r"[\[\]{}|<>=*#\\_^~\u2192\u2191\u2193\ue000]|https?:|www\.|File:|Image:|''|\bISBN\b|\bpx\b|&[a-z]+;"
)
_BAD_PUNCTUATION = re.compile(r"\( ?[,;.)]|[,;] ?[,;.]|\s[,;:.]|\(\)|\"\"|^\W*,|(?<!\.)\.\.(?!\.)")
_FIRST = re.compile(r"[\"'\u201c\u2018]?[A-Z0-9]")
_LAST = re.compile(r"[.!?][\"'\u201d\u2019)]{0,2}$")


class WikipediaSentences(Source):
    """About 17,000 clean sentences of some hundred English Wikipedia articles: unlabelled prose of mixed subjects.

    Column `text`; the group is the article, so no article is both learnt from and judged on. Needs gensim, whose test
    data holds the dump. The texts are CC BY-SA.
    """

    def load(self) -> Rows:
        """See `Source.load`."""
        pairs = sentences(gensim_file(_DUMP, "WikipediaSentences"))
        return Rows(columns={"text": [text for _, text in pairs]}, group=[article for article, _ in pairs])


def gensim_file(name: str, purpose: str) -> Path:
    """A file of gensim's test data.

    Raises:
        DataError: gensim is not installed, or without its test data.
    """
    spec = importlib.util.find_spec("gensim")
    folder = None if spec is None else next(iter(spec.submodule_search_locations or ()), None)
    path = None if folder is None else Path(folder) / "test" / "test_data" / name
    if path is None or not path.is_file():
        raise DataError(
            purpose,
            expected="the package `gensim` with its test data",
            found="it is not installed" if folder is None else f"no `{name}` in it",
            mend=_INSTALL,
        )
    return path


def sentences(dump: Path) -> list[tuple[str, str]]:
    """(article title, sentence) pairs in the order of the dump, without repeated sentences."""
    extract_pages, filter_wiki = _wikicorpus()
    seen: set[str] = set()
    found: list[tuple[str, str]] = []
    with bz2.open(dump, "rb") as pages:
        for title, raw, _ in extract_pages(pages, filter_namespaces=("0",)):
            if not raw or raw.lstrip().lower().startswith("#redirect"):
                continue
            lines = (line for line in strip_markup(raw, filter_wiki).split("\n") if line[:1] not in "=;|!{")
            for line in lines:
                for sentence in split_sentences(_tidy(line.lstrip("*#: "))):
                    if sentence not in seen and is_clean(sentence):
                        seen.add(sentence)
                        found.append((title, sentence))
    return found


def _wikicorpus() -> tuple[Any, Any]:
    try:
        from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    except ImportError as error:
        raise DataError(
            "WikipediaSentences",
            expected="gensim and the packages it imports",
            found=str(error),
            mend=_INSTALL,
        ) from error
    return extract_pages, filter_wiki


def strip_markup(raw: str, filter_wiki: Any) -> str:
    """Plain text of an article's wiki source, one paragraph or list entry a line."""
    text = _REMOVED.sub("", raw)
    tail = _TAIL.search(text)
    if tail:
        text = text[: tail.start()]
    text = _CONVERT.sub(r"\1 \2", _DASH.sub(" \u2013 ", text))
    for _ in range(3):  # templates stand within templates
        text = _CITE.sub("", _INLINE.sub(r"\1", text))
        text = _OTHER.sub(_GAP, _ALONE.sub("", text))
    text = _LINK.sub(r"\1", _MEDIA.sub("", text))
    text = filter_wiki(text, promote_remaining=False, simplify_links=True)
    return re.sub(r"'{2,5}", "", text).replace("\u00a0", " ").replace("\u200e", "")


def _tidy(line: str) -> str:
    """Single spaces, and no parentheses that lost their content (pronunciations)."""

    def inner(match: re.Match[str]) -> str:
        lost = _GAP in match[1] or not re.search(r"\w", match[1])
        return "" if lost else f"({match[1].strip(' ,;')})"

    line = _PARENTHESES.sub(inner, re.sub(r"\s+", " ", line).strip())
    line = re.sub(r"\s+([,;:.!?)])", r"\1", re.sub(r"\(\s+", "(", line))
    return re.sub(r" {2,}", " ", line).strip()


def split_sentences(line: str) -> list[str]:
    """The sentences of a line; an initial or a common abbreviation ends none."""
    found: list[str] = []
    start = 0
    for match in _END.finditer(line):
        if not _ABBREVIATION.search(line[start : match.start()]):
            found.append(line[start : match.end()].strip())
            start = match.end()
    return [*found, line[start:].strip()]


def is_clean(sentence: str) -> bool:
    """Whether this reads as one whole English sentence of 5 to 60 words."""
    words = sentence.split()
    letters = sum(character.isascii() and character.isalpha() for character in sentence)
    return (
        5 <= len(words) <= 60
        and _FIRST.match(sentence) is not None
        and _LAST.search(sentence) is not None
        and not _RESIDUE.search(sentence)
        and not _BAD_PUNCTUATION.search(sentence)
        and sentence.count("(") == sentence.count(")")
        and sentence.count('"') % 2 == 0
        and letters >= 0.7 * len(sentence)
        and sum(word[0].islower() for word in words) >= 0.35 * len(words)
    )
