"""The text of token ids while they come, one at a time."""

from gpt2lab.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not (yet) UTF-8
_UNSETTLED = 4
"""A blank this near to the end of a text may still go when more text comes."""


class StreamDecoder:
    """The text of a growing list of ids, never cut inside a character.

    `push` returns the new text of one id (empty while a character is incomplete), `flush` the rest.
    """

    _PATIENCE = 4  # a UTF-8 character has at most 4 bytes, so more ids than that wait for nothing

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        """Start at the beginning of a text."""
        self.tokenizer = tokenizer
        self.skip_special = skip_special
        self._window: list[int] = []  # ids decoded together: the last settled ones, then the waiting ones
        self._settled = 0  # ids of the window whose text is out
        self._out = 0  # characters of the window's text that are out

    def push(self, id: int) -> str:
        """Take one id and return the text that has become certain."""
        self._window.append(id)
        text = self.tokenizer.decode(self._window, skip_special=self.skip_special)
        if self.tokenizer.cleans_up:
            return self._push_cleaned(text)
        if not text.endswith(_REPLACEMENT):
            return self._settle(text)
        if len(self._window) - self._settled <= self._PATIENCE:
            return ""
        piece = text[self._out : -1]  # only the last character can still change
        self._out = max(self._out, len(text) - 1)
        return piece

    def _push_cleaned(self, text: str) -> str:
        """Return what no later text can change, of a tokenizer that takes out blanks; its window is the whole text."""
        blank = text.find(" ", max(0, len(text) - _UNSETTLED))
        certain = len(text) if blank < 0 else blank
        piece = text[self._out : certain]
        self._out = max(self._out, certain)
        return piece

    def flush(self) -> str:
        """Return the rest, incomplete characters as U+FFFD, and start anew."""
        piece = self.tokenizer.decode(self._window, skip_special=self.skip_special)[self._out :]
        self._window, self._settled, self._out = [], 0, 0
        return piece

    def _settle(self, text: str) -> str:
        piece = text[self._out :]
        # The ids settled last stay in the window: some decoders drop a blank at the start of a text.
        kept = self._window[self._settled :] if piece else self._window
        self._out = len(self.tokenizer.decode(kept, skip_special=self.skip_special)) if piece else self._out
        self._window, self._settled = kept, len(kept)
        return piece
