"""What the tokenizer classes of transformers 5 make of a folder's files: which class reads it, and what that class does.

Most folders are read from tokenizer.json as it is. Some classes take from it only vocabulary, merges and what is put
around a text, and cut text by a rule of their own; the same classes read folders without tokenizer.json.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from gpt2lab.text.tokenizer import END_OF_TEXT


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The vocabulary of a tokenizer, as a file holds it."""

    vocabulary: Mapping[str, int]
    """Id of each piece."""
    merges: list[tuple[str, str]] = field(default_factory=list)
    """Pairs that a BPE joins, the most important first."""


Config = Mapping[str, Any]
"""The entries of tokenizer_config.json."""

Frame = Callable[[Tokenizer, Mapping[str, str | None], Config], None]
"""Sets what is put around a text, given the special tokens by entry."""


@dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """What one class does beyond reading tokenizer.json."""

    build: Callable[[Pieces, Config, str], Tokenizer]
    """Makes a tokenizer of a vocabulary; the text is the unknown token's."""
    tokens: Mapping[str, str | None]
    """Special tokens by entry, where no file names others."""
    vocabulary_files: tuple[str, ...] = ("vocab.json", "merges.txt")
    """What it reads where there is no tokenizer.json."""
    frame: Frame | None = None
    """What it puts around every text, whatever tokenizer.json says; None: what that says, or bos and eos as asked for."""
    model: str = "BPE"
    """The kind of model whose vocabulary it takes from tokenizer.json; one of another kind is read as it is."""
    keeps_frame: bool = True
    """What tokenizer.json puts around a text stays."""
    plain: bool = False
    """Special tokens lose their flags: blanks beside them stay, whatever the files say."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Entries of tokenizer_config.json that it has unless a file names them."""


def class_of(config: Config, model: Config, tokenizer_json: str | None) -> TokenizerClass | None:
    """Return the class that AutoTokenizer of transformers 5 opens a folder with; None reads tokenizer.json as it is.

    config, model: tokenizer_config.json and config.json, empty where missing. tokenizer_json: its text, None where
    missing. A class that is not here but in transformers (of T5, Gemma and others) reads tokenizer.json as it is, too.
    """
    family = model.get("model_type")
    usual = _OF_FAMILY.get(family) if isinstance(family, str) else None
    named = config.get("tokenizer_class") or model.get("tokenizer_class")
    if not isinstance(named, str):
        return _CLASSES.get(usual or "")
    named = named.removesuffix("Fast")
    if not config.get("auto_map"):
        # Llama 3 and its like name LlamaTokenizer, whose rule is another than their byte-level one.
        if named == "LlamaTokenizer" and family not in _BELIEVED and '"ByteLevel"' in (tokenizer_json or ""):
            return None
        if family in _GENERIC:
            return None
        if family in _BELIEVED:
            named = str(usual)
    return _CLASSES.get(named)


def unknown_class(config: Config, model: Config) -> str | None:
    """Return the class that a folder names if its rule is not known here; a vocabulary alone says nothing without it."""
    named = config.get("tokenizer_class") or model.get("tokenizer_class")
    if not isinstance(named, str) or named.removesuffix("Fast") in (*_CLASSES, *_ANY_TOKENIZER):
        return None
    return named


def set_frame(
    backend: Tokenizer, kind: TokenizerClass | None, tokens: Mapping[str, str | None], config: Config
) -> None:
    """Set what is put around a text: what the class always puts there, or bos and eos where the configuration asks.

    `config` has no `add_bos_token` and `add_eos_token` where there is a tokenizer.json, which says it itself.
    """
    if kind is not None and kind.frame is not None:
        kind.frame(backend, tokens, config)
        return
    asked = "add_bos_token" in config or "add_eos_token" in config
    if not asked and backend.post_processor is not None and (kind is None or kind.keeps_frame):
        return
    bos = tokens.get("bos_token") if config.get("add_bos_token") else None
    eos = tokens.get("eos_token") if config.get("add_eos_token") else None
    backend.post_processor = framing(backend, bos, eos)


def framing(backend: Tokenizer, bos: str | None, eos: str | None) -> processors.TemplateProcessing | None:
    """Return what puts a bos before and an eos after each text; the second of a pair has token type 1."""
    ends = {token: backend.token_to_id(token) for token in (bos, eos) if token is not None}
    if not ends:
        return None

    def framed(text: str, type: int) -> list[str]:
        return [f"{piece}:{type}" for piece in (bos, text, eos) if piece is not None]

    first = framed("$A", 0)
    return processors.TemplateProcessing(
        single=first, pair=first + framed("$B", 1), special_tokens=list(ends.items())
    )


def _byte_level(pieces: Pieces, config: Config, unknown: str) -> Tokenizer:
    backend = Tokenizer(_bpe(pieces))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    backend.decoder = decoders.ByteLevel()
    return backend


def _bpe(pieces: Pieces, **options: Any) -> models.BPE:
    # The empty affixes are what these classes and the files of GPT-2's kind say; they change no id.
    affixes = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    return models.BPE(vocab=dict(pieces.vocabulary), merges=pieces.merges, **(affixes | options))


def _neox(pieces: Pieces, config: Config, unknown: str) -> Tokenizer:
    backend = _byte_level(pieces, config, unknown)
    backend.normalizer = normalizers.NFC()
    return backend


QWEN2_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The regular expression by which Qwen 2 cuts text."""


def _qwen2(pieces: Pieces, config: Config, unknown: str) -> Tokenizer:
    backend = _neox(pieces, config, unknown)
    blank = bool(config.get("add_prefix_space"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_RULE), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=blank, use_regex=False),
        ]
    )
    return backend


def _llama(pieces: Pieces, config: Config, unknown: str) -> Tokenizer:
    """Sentencepiece's way: ▁ for a blank, one in front of the text, bytes for what no piece covers."""
    blank = config.get("add_prefix_space")
    blank = True if blank is None else bool(blank)
    scheme = "never" if not blank else "always" if config.get("legacy") else "first"
    backend = Tokenizer(
        models.BPE(vocab=dict(pieces.vocabulary), merges=pieces.merges, fuse_unk=True, byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + ([decoders.Strip(content=" ", left=1)] if blank else []))
    return backend


def _bert(pieces: Pieces, config: Config, unknown: str) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(vocab=dict(pieces.vocabulary), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=bool(config.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _bert_frame(backend: Tokenizer, tokens: Mapping[str, str | None], config: Config) -> None:
    ends = _first_and_last(backend, tokens)
    if ends is None:
        return
    (first, _), (last, _) = ends
    backend.post_processor = processors.TemplateProcessing(
        single=[f"{first}:0", "$A:0", f"{last}:0"],
        pair=[f"{first}:0", "$A:0", f"{last}:0", "$B:1", f"{last}:1"],
        special_tokens=list(dict(ends).items()),
    )


def _roberta_frame(backend: Tokenizer, tokens: Mapping[str, str | None], config: Config) -> None:
    ends = _first_and_last(backend, tokens)
    if ends is None:
        return
    first, last = ends
    backend.post_processor = processors.RobertaProcessing(
        last,
        first,
        trim_offsets=bool(config.get("trim_offsets", True)),
        add_prefix_space=bool(config.get("add_prefix_space", False)),
    )


def _first_and_last(
    backend: Tokenizer, tokens: Mapping[str, str | None]
) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Return the tokens at both ends of a text with their ids; None where a folder says that there are none."""
    first, last = tokens.get("cls_token"), tokens.get("sep_token")
    if first is None or last is None:
        return None
    ids = [backend.token_to_id(token) for token in (first, last)]
    if ids[0] is None or ids[1] is None:  # a default that the model has no row for
        return None
    return (first, ids[0]), (last, ids[1])


def _ends(*keys: str, **others: str | None) -> dict[str, str | None]:
    return {f"{key}_token": END_OF_TEXT for key in keys} | {f"{key}_token": o for key, o in others.items()}


GPT2 = TokenizerClass(build=_byte_level, tokens=_ends("unk", "bos", "eos", pad=None))
_ROBERTA = TokenizerClass(
    build=_byte_level,
    tokens=_ends(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>"),
    frame=_roberta_frame,
)
_DISTILBERT = TokenizerClass(
    build=_bert,
    tokens={f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")},
    vocabulary_files=("vocab.txt",),
    model="WordPiece",
    frame=_bert_frame,
)
BERT = replace(_DISTILBERT, settings={"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]})

_CLASSES: dict[str, TokenizerClass] = {
    "GPT2Tokenizer": GPT2,
    "CodeGenTokenizer": GPT2,
    "GPTNeoXTokenizer": TokenizerClass(
        build=_neox, tokens=_ends("unk", "bos", "eos", pad="<|padding|>"), keeps_frame=False
    ),
    "Qwen2Tokenizer": TokenizerClass(build=_qwen2, tokens=_ends("unk", "eos", "pad", bos=None), plain=True),
    "LlamaTokenizer": TokenizerClass(
        build=_llama,
        tokens=_ends(unk="<unk>", bos="<s>", eos="</s>"),
        settings={"padding_side": "left"},
    ),
    **dict.fromkeys(("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"), _ROBERTA),
    **dict.fromkeys(
        (
            "BertTokenizer",
            "ConvBertTokenizer",
            "DPRContextEncoderTokenizer",
            "DPRQuestionEncoderTokenizer",
            "ElectraTokenizer",
            "LayoutLMTokenizer",
            "LxmertTokenizer",
            "MobileBertTokenizer",
            "SqueezeBertTokenizer",
        ),
        BERT,
    ),
    "DistilBertTokenizer": _DISTILBERT,
}

_OF_FAMILY = {
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gptj": "GPT2Tokenizer",
    "opt": "GPT2Tokenizer",
    "phi": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "roberta": "RobertaTokenizer",
}
"""`model_type` of config.json → the class of folders that name none."""

_ANY_TOKENIZER = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes that have no rule of their own."""

_GENERIC = ("mistral", "mixtral")
"""Families whose folders are read as tokenizer.json says, whatever class they name."""

_BELIEVED = ("qwen2",)
"""Families whose folders are read by their family's class, whatever class they name."""
