"""One tokenizer for every model: text to ids and back, in Hugging Face's `tokenizer.json`."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import tokenizers

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.interruptible import interruptible
from gpt2lab.base.progress import Progress, Waiting
from gpt2lab.text.chat_templates import chat_templates
from gpt2lab.text.long_words import in_pieces, with_bounded_words

_T = TypeVar("_T")
END_OF_TEXT = "<|endoftext|>"
PAD = "[PAD]"
MASK = "[MASK]"
_MOST_IDS = 2**24
_LARGEST_ID = 2**31 - 1


class Tokenizer:
    """A tokenizer with the ids of its special tokens.

    `bos`, `eos`, `unk`, `sep`, `pad`, `cls`, `mask` are ids, or None where the vocabulary has no such token.
    Never changed after it is made, so that its `fingerprint` stays true.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos: int | None = None,
        eos: int | None = None,
        pad: int | None = None,
        unk: int | None = None,
        mask: int | None = None,
        cls: int | None = None,
        sep: int | None = None,
        settings: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`; `settings` is what else `tokenizer_config.json` keeps on saving.

        files: texts of further files of a tokenizer's folder by path, chat templates.
        """
        backend.no_truncation()  # a stored limit would cut long documents without a word
        backend.no_padding()
        self.backend = backend
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """Rows an embedding needs: the largest id + 1."""
        self._added = dict(backend.get_added_tokens_decoder())
        self.special_ids = frozenset(i for i, token in self._added.items() if token.special)
        """The ids that `decode` leaves out by default."""
        self.bos = self._checked("bos", bos)
        self.eos = self._checked("eos", eos)
        self.pad = self._checked("pad", pad)
        self.unk = self._checked("unk", unk)
        self.mask = self._checked("mask", mask)
        self.cls = self._checked("cls", cls)
        self.sep = self._checked("sep", sep)
        self.settings: dict[str, Any] = dict(settings or {})
        self.files: dict[str, str] = dict(files or {})
        # Not a part of tokenizer.json: special tokens that a text writes out are then cut up as words are.
        backend.encode_special_tokens = bool(self.settings.get("split_special_tokens", False))
        self._fingerprint: str | None = None

    def _checked(self, name: str, token: int | None) -> int | None:
        if token is not None and not 0 <= token < self.vocab_size:
            raise LabError(f"{name} token {token}: outside the vocabulary of {self.vocab_size} ids")
        return token

    def __repr__(self) -> str:
        special = ", ".join(f"{name}={getattr(self, name)}" for name in ("bos", "eos", "pad", "unk"))
        return f"Tokenizer({self.vocab_size} ids, {special}, {self.fingerprint[:8]})"

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special` also what the tokenizer puts around it (such as a bos).

        A special token written out in the text (`<|endoftext|>`) becomes its id, as in transformers.
        LabError for a word outside a vocabulary that has no unknown token, and for text that is not Unicode.
        """
        return self._encoded(lambda: self.backend.encode(text, add_special_tokens=special).ids, [text])

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the ids of each text, as `encode` does, on all cores."""
        fast = (
            self.backend.encode_batch_fast
        )  # the same ids; offsets, which nobody reads here, are not computed
        return self._encoded(lambda: [e.ids for e in fast(list(texts), add_special_tokens=special)], texts)

    def encoding(self, text: str) -> tokenizers.Encoding:
        """Return the ids of `text` with the characters that each stands for, without special tokens; else as `encode`."""
        return self._encoded(lambda: self.backend.encode(text, add_special_tokens=False), [text])

    def aligned(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of `text` and the characters that each stands for, [start, stop); without special tokens."""
        found = self.encoding(text)
        return self.ids_of(found), list(found.offsets)

    def ids_of(self, encoding: tokenizers.Encoding) -> list[int]:
        """Return the model's ids of an encoding that this tokenizer has made."""
        return list(encoding.ids)

    def _encoded(self, call: Callable[[], _T], texts: Sequence[str]) -> _T:
        try:
            return call()
        except BaseException as error:
            if not is_from_tokenizers(error):
                raise
            raise LabError(self._why_not_encoded(texts, error)) from error

    def _why_not_encoded(self, texts: Sequence[str], error: BaseException) -> str:
        for text in texts:
            if not isinstance(text, str):
                return f"a tokenizer encodes str, got {type(text).__name__}: {str(text)[:40]!r}"
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as wrong:
                return (
                    f"text is not Unicode: lone surrogate at character {wrong.start}; read the file as UTF-8"
                )
            if "UNK" in str(error):
                for word, _ in self._pieces(text):
                    if self.backend.token_to_id(word) is None:
                        known = f"the {self.vocab_size} words of this tokenizer"
                        return f"{word!r} is not among {known}, which has no unknown token"
        return f"the tokenizer cannot encode this text: {brief(error)}"

    def _pieces(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        splitter = self.backend.pre_tokenizer
        return splitter.pre_tokenize_str(text) if splitter is not None else [(text, (0, len(text)))]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`, by default without special tokens.

        An id without a token, which a model with more rows than its tokenizer has ids may say, has no text, as in
        transformers. LabError for what can be no id.
        """
        ids = [int(i) for i in ids]
        if ids and (min(ids) < 0 or max(ids) > _LARGEST_ID):
            wrong = next(i for i in ids if not 0 <= i <= _LARGEST_ID)
            raise LabError(f"id {wrong}: token ids are whole numbers from 0 to {_LARGEST_ID}")
        try:
            text = str(self.backend.decode(ids, skip_special_tokens=skip_special))
        except BaseException as error:
            if not is_from_tokenizers(error):
                raise
            raise LabError(f"the tokenizer cannot decode these ids: {brief(error)}") from error
        return _cleaned(text) if self.cleans_up else text

    @property
    def cleans_up(self) -> bool:
        """Whether decoding takes out the blanks before punctuation, as folders of BERT's kind ask for.

        A BPE keeps them whatever its folder says, as in transformers 5: it writes the blanks of the text itself.
        """
        if not self.settings.get("clean_up_tokenization_spaces"):
            return False
        forced = self.settings.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
        return bool(forced) or not isinstance(self.backend.model, tokenizers.models.BPE)

    def token(self, id: int) -> str:
        """Return the token of one id as the vocabulary spells it (`Ġthe`); empty where there is none."""
        added = self._added.get(id)  # id_to_token would give its normalized form
        return str(added.content) if added is not None else self.backend.id_to_token(id) or ""

    def id(self, token: str) -> int | None:
        """Return the id of a token as the vocabulary spells it, None if there is none."""
        return self.backend.token_to_id(token)

    @cached_property
    def holes(self) -> tuple[int, ...]:
        """The ids below `vocab_size` that have no token."""
        known = set(self.backend.get_vocab(with_added_tokens=True).values())
        return tuple(id for id in range(self.vocab_size) if id not in known)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token (as the vocabulary spells it) with its id, in the order of ids."""
        return dict(sorted(self.backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1]))

    @property
    def chat_templates(self) -> dict[str, str]:
        """Chat templates by name, the usual one as "default"; those in files count before tokenizer_config.json's."""
        return chat_templates(self.files, self.settings)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides ids: normalizer, pre-tokenizer, model and added tokens.

        The same before saving and after loading, and the same for two files that encode every text alike but
        differ in what they do afterwards (templates, decoder, truncation).
        """
        if self._fingerprint is None:
            content = json.loads(self.backend.to_str())
            kept = {key: content.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
            if self.backend.encode_special_tokens:
                kept["split_special_tokens"] = True
            canonical = json.dumps(kept, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
            self._fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        return self._fingerprint


def is_from_tokenizers(error: BaseException) -> bool:
    """Whether the tokenizers library failed: it raises bare Exception, and what its Rust code panics with is none."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


_CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def _cleaned(text: str) -> str:
    """Return text without the blanks that splitting punctuation off has left, in the order of transformers."""
    for found, instead in _CLEANED:
        text = text.replace(found, instead)
    return text


def train_bpe(
    documents: Iterable[str],
    vocab_size: int,
    *,
    eos: str = END_OF_TEXT,
    special: Sequence[str] = (),
    min_frequency: int = 2,
    add_prefix_space: bool = False,
    split_words: bool = True,
    text_bytes: int | None = None,
) -> Tokenizer:
    """Train a byte-level BPE as GPT-2's on any stream of documents, of which none is kept.

    `vocab_size` counts the 256 bytes and the special tokens (`eos`, which is also the bos, then `special`),
    which get the lowest ids; a small corpus may give fewer ids. The same documents give the same tokenizer.
    A word of more than 1,000 characters (genes, base64, blanks) is learnt from in pieces of so many: the time that
    training takes grows with the length of the text, not with its square.
    split_words=False: blanks and punctuation are letters like others, so that a token may go beyond a word; a document is
    then learnt from in pieces of 1,000 characters.
    `text_bytes`: bytes of UTF-8 to expect of a stream, for the share and the time left that the progress line shows.
    LabError if `vocab_size` is too small or there is no text.
    Sennrich et al. 2016; bytes as in Radford et al. 2019.
    """
    names = list(dict.fromkeys([eos, *special]))
    if vocab_size > _MOST_IDS:  # the library makes room for all of them at once
        raise LabError(f"vocab_size {vocab_size:,}: a tokenizer has at most {_MOST_IDS:,} ids")
    if vocab_size < 256 + len(names):
        raise LabError(
            f"vocab_size {vocab_size}: a byte-level tokenizer needs at least {256 + len(names)} "
            f"(256 bytes and {len(names)} special tokens)"
        )
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=add_prefix_space, use_regex=split_words
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=names,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # One of its own: the trainer holds a lock on the tokenizer and its parts while it asks for documents.
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bar = _bar(documents, text_bytes, "counting words, then merging")
    with bar, Waiting(f"tokenizer (merging pairs, {vocab_size:,} ids at most)") as merging:
        texts = (
            piece
            for document in _some(documents, "train a tokenizer on", bar)
            for piece in (with_bounded_words(document, splitter) if split_words else in_pieces(document))
        )
        interruptible(
            lambda pieces: backend.train_from_iterator(pieces, trainer), texts, afterwards=merging.show
        )
    return _with_eos(backend, eos)


def word_level(
    documents: Iterable[str],
    *,
    vocab_size: int | None = None,
    min_frequency: int = 1,
    punctuation: bool = True,
    unk: str | None = "<unk>",
    eos: str | None = END_OF_TEXT,
    special: Sequence[str] = (),
    text_bytes: int | None = None,
) -> Tokenizer:
    """Make one id per word, most frequent first (ties by appearance), after `unk`, `eos`, `special`.

    Words are separated by blanks, and with `punctuation` also from the punctuation beside them; decoding puts
    one blank between words. `vocab_size` counts special tokens. With `unk=None` an unknown word is refused.
    `text_bytes` as for `train_bpe`.
    """
    splitter = (
        tokenizers.pre_tokenizers.Whitespace() if punctuation else tokenizers.pre_tokenizers.WhitespaceSplit()
    )
    counts: dict[str, int] = {}
    with _bar(documents, text_bytes, "counting words") as bar:
        for document in _some(documents, "collect words from", bar):
            for word, _ in splitter.pre_tokenize_str(document):
                counts[word] = counts.get(word, 0) + 1
    names = list(dict.fromkeys(name for name in (unk, eos, *special) if name is not None))
    ranked = sorted(
        (word for word in counts if counts[word] >= min_frequency), key=lambda word: -counts[word]
    )
    words = names + [word for word in ranked if word not in names]
    if vocab_size is not None:
        if vocab_size <= len(names):
            raise LabError(
                f"vocab_size {vocab_size}: leaves no room for words beside {len(names)} special tokens"
            )
        words = words[:vocab_size]
    vocabulary = {word: id for id, word in enumerate(words)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unk or "<unk>"))
    backend.pre_tokenizer = splitter
    _add_special(backend, names)
    return Tokenizer(
        backend,
        bos=vocabulary.get(eos) if eos else None,
        eos=vocabulary.get(eos) if eos else None,
        unk=vocabulary.get(unk) if unk else None,
    )


def for_masking(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer with a padding and a mask token, which masked language modelling needs: itself if it has both.

    Else its own "[PAD]" and "[MASK]" are taken, or added with the next ids.
    """
    ids = {"pad": tokenizer.pad, "mask": tokenizer.mask}
    if None not in ids.values():
        return tokenizer
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    for name, token in (("pad", PAD), ("mask", MASK)):
        if ids[name] is None:
            _add_special(backend, [token])
            ids[name] = backend.token_to_id(token)
    kept = {name: getattr(tokenizer, name) for name in ("bos", "eos", "unk", "cls", "sep")}
    return Tokenizer(backend, **kept, **ids, settings=tokenizer.settings, files=tokenizer.files)


def byte_level(*, eos: str = END_OF_TEXT) -> Tokenizer:
    """Make the tokenizer whose ids are the UTF-8 bytes of the text, and 256 for `eos` (also the bos)."""
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    _add_special(backend, [eos])
    return _with_eos(backend, eos)


def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte in vocabularies (Radford et al. 2019)."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))  # bytes that are blank or unprintable move up, in order
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]


def _add_special(backend: tokenizers.Tokenizer, names: Iterable[str]) -> None:
    backend.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in names]
    )


def _with_eos(backend: tokenizers.Tokenizer, eos: str) -> Tokenizer:
    id = backend.token_to_id(eos)
    return Tokenizer(backend, bos=id, eos=id)


def _bar(documents: Iterable[str], text_bytes: int | None, phase: str) -> Progress[None]:
    """Return the progress line of reading documents; how many bytes there are is counted where they are at hand."""
    if text_bytes is None and isinstance(documents, Sequence):
        text_bytes = sum(map(_bytes, documents))
    return Progress(total=text_bytes, label=f"tokenizer ({phase})", unit="bytes")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _some(documents: Iterable[str], purpose: str, bar: Progress[None]) -> Iterable[str]:
    """Pass documents on, whose bytes `bar` counts, and close it; LabError if there is no text in them at all."""
    if isinstance(documents, str):
        raise LabError(f"documents to {purpose}: got one str; give [text], or the documents of a source")
    empty = True
    for document in documents:
        empty = empty and not document
        yield document
        bar.advance(_bytes(document))
    bar.close()
    if empty:
        raise LabError(f"no text to {purpose}: the documents are empty")
