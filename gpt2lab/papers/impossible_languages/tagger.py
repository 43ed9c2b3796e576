"""Sentences of plain text, and an approximate tagger of present verbs by rules, where no annotation is at hand.

The tagger finds auxiliaries and common verbs after a subject that it recognises by its form. It overlooks many verbs and
errs on some; whatever it tags is to be called approximate. The authors' annotations come from Stanza; treebanks of Universal
Dependencies and the generated sentences have exact ones.
"""

import re
from collections.abc import Iterator, Sequence

from gpt2lab.papers.impossible_languages.annotations import Sentence, Word, features

_BORDER = re.compile(r"(?<=[.!?])[\"'”’)]* (?=[\"'“‘(]?[A-Z])")
_WORDS = re.compile(r"(?i)\w+(?=n't\b)|n't\b|'(?:ll|s|re|ve|m)\b|\w+(?:[-.]\w+)*|[^\w\s]")
_FORMS = {"is": ("be", "Sing"), "has": ("have", "Sing"), "does": ("do", "Sing"), "goes": ("go", "Sing")}
_PRONOUNS = "he she it this that who which everyone everybody nobody somebody something nothing one"
_DETERMINERS = "the a an his her its their my your our this that every each some these those many no"
_COMMON = (
    "come go know think see look want seem say tell ask take make give find get keep live like love run "
    "work call need feel become leave mean let begin help show hear play move believe bring happen write "
    "sit stand lose pay meet learn change understand watch follow stop speak read spend grow open walk "
    "win teach remember appear wait die send build stay fall cut reach kill raise pass sell decide return "
    "hope carry break receive agree draw hold turn"
)
_PLURAL = ("they", "these", "those", "many")
_SINGULAR, _BEFORE_NOUNS, _VERBS = (frozenset(words.split()) for words in (_PRONOUNS, _DETERMINERS, _COMMON))
_PRESENT = {
    number: features(f"Number={number}|Person=3|Tense=Pres|VerbForm=Fin") for number in ("Sing", "Plur")
}


def split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text: white space becomes single blanks, and . ! ? before a capital letter ends one."""
    flat = " ".join(text.split())
    start = 0
    for border in _BORDER.finditer(flat):
        yield flat[start : border.end() - 1]
        start = border.end()
    if flat[start:]:
        yield flat[start:]


def split_words(text: str) -> list[str]:
    """Return words, punctuation and clitics (n't, 'll, 's, 're, 've, 'm) of a sentence."""
    return _WORDS.findall(text.replace("’", "'"))


def tag_approximately(text: str) -> Sentence:
    """Return a sentence with the present verbs of the third person that a few rules find; their lemma with them."""
    words = split_words(text)
    return Sentence(text, tuple(_tagged(words, place) for place in range(len(words))))


def _tagged(words: Sequence[str], place: int) -> Word:
    form = words[place]
    before = words[place - 1].lower() if place else ""
    verb = _verb(form.lower(), before, words[place - 2].lower() if place > 1 else "")
    if verb is None:
        return Word(form, form)
    lemma, number = verb
    return Word(form, lemma, _PRESENT[number], "VERB")


def _verb(form: str, before: str, earlier: str) -> tuple[str, str] | None:
    """Return lemma and number of a present verb, by its form and the two words before it."""
    if form in _FORMS:
        return _FORMS[form]
    plural = before in _PLURAL or (
        before.endswith("s") and earlier in _BEFORE_NOUNS and not before.endswith("ss")
    )
    if form == "are":
        return ("be", "Plur") if plural else None
    if plural and (form in _VERBS or form in ("have", "do")):
        return form, "Plur"
    lemma = _without_ending(form)
    singular = before in _SINGULAR or (
        earlier in _BEFORE_NOUNS and before.isalpha() and not before.endswith("s")
    )
    return (lemma, "Sing") if lemma is not None and singular else None


def _without_ending(form: str) -> str | None:
    """Return the verb of which a form in -s is the third person, None if it is none that is known."""
    candidates = [form[:-3] + "y"] if form.endswith("ies") else [form[:-1], form[:-2]]
    return next((one for one in candidates if form.endswith("s") and one in _VERBS), None)
