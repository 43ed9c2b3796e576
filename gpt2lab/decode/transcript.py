"""The text of one row while its tokens come: stop strings and streaming."""

from collections.abc import Callable, Sequence

from gpt2lab.text.streaming import StreamDecoder
from gpt2lab.text.tokenizer import Tokenizer

CONTEXT = 16
"""Last tokens of the prompt that are decoded with the new ones, because some tokenizers drop a blank at the start."""


class Transcript:
    """New tokens → new text, ended by a stop string that may begin and end inside tokens.

    emit, if given, is called with pieces of text as they become certain: never half a character, and nothing that may
    turn out to be the beginning of a stop string.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        stop: Sequence[str] = (),
        keep_stop: bool = False,
        emit: Callable[[str], object] | None = None,
    ) -> None:
        self.stop, self.keep_stop, self.emit = tuple(stop), keep_stop, emit
        self.text = ""
        self.stopped = False
        self._decoder = StreamDecoder(tokenizer)
        self._emitted = 0
        for token in prompt[-CONTEXT:]:
            self._decoder.push(token)

    def push(self, token: int) -> bool:
        """Take the next token; return whether a stop string is now complete."""
        self._extend(self._decoder.push(token))
        return self.stopped

    def close(self) -> str:
        """Let out what was held back and return the whole text."""
        if not self.stopped:
            self._extend(self._decoder.flush())
        self._let_out(len(self.text))
        return self.text

    def _extend(self, piece: str) -> None:
        searched, self.text = len(self.text), self.text + piece
        ends = [self._ending(string, searched) for string in self.stop] if piece else []
        found = min((end for end in ends if end is not None), default=None)
        if found is not None:
            start, end = found
            self.text, self.stopped = self.text[: end if self.keep_stop else start], True
        self._let_out(len(self.text) if self.stopped else len(self.text) - self._held_back())

    def _ending(self, string: str, searched: int) -> tuple[int, int] | None:
        """Where a stop string first occurs, if it does in text that is not searched yet."""
        start = self.text.find(string, max(0, searched - len(string) + 1))
        return None if start < 0 else (start, start + len(string))

    def _held_back(self) -> int:
        """How many characters at the end are the beginning of a stop string."""
        longest = max((len(string) for string in self.stop), default=1) - 1
        for length in range(min(longest, len(self.text)), 0, -1):
            if any(string.startswith(self.text[-length:]) for string in self.stop):
                return length
        return 0

    def _let_out(self, until: int) -> None:
        if self.emit is not None and until > self._emitted:
            self.emit(self.text[self._emitted : until])
        self._emitted = max(self._emitted, until)
