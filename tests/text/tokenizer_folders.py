"""Tokenizer folders of many kinds, written from a seed: classes, families, files present or missing, flags."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = (
    "Once upon a time there was a girl named Lily, who lowered the lowest of 1234 flowers.\n"
    "don't she'll they've I'm  two  blanks\tand a tab; héllo naïve Ünïcode café — “quoted” 日本 🙂\n"
    "def f(x):\n    return x + 12.5  # HELLO World HeLLo\n"
) * 3

SPECIAL = ("<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<mask>", "<|im_end|>")


@dataclass
class Folder:
    """What will be written."""

    kind: str
    """byte-level, sentencepiece or wordpiece."""
    family: str | None
    """`model_type` of config.json; None: there is no config.json."""
    config: dict[str, Any] | None
    """tokenizer_config.json."""
    tokenizer: dict[str, Any] | None
    """tokenizer.json."""
    texts: dict[str, str] = field(default_factory=dict)
    """Further files."""
    model: dict[str, Any] = field(default_factory=lambda: {"vocab_size": 1000})
    """Further entries of config.json."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        files = dict(self.texts)
        if self.family is not None:
            files["config.json"] = json.dumps({"model_type": self.family, **self.model})
        if self.config is not None:
            files["tokenizer_config.json"] = json.dumps(self.config)
        if self.tokenizer is not None:
            files["tokenizer.json"] = json.dumps(self.tokenizer)
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


@cache
def _trained(kind: str) -> str:
    """Return a small tokenizer.json without added tokens, whose vocabulary holds the usual special tokens."""
    if kind == "wordpiece":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(TEXT.lower().split()))]
        words += sorted(set(TEXT + TEXT.lower()) - {" ", "\n", "\t"}) + [
            "##" + c for c in "abcdefghijklmnopqrstuvwxyz"
        ]
        words += [
            "HELLO",
            "World",
            "hello",
            "cafe",
            "naive",
            "##ver",
            "##est",
            ".",
            "!",
            "?",
            "'",
            "n",
            "##nt",
        ]
        vocabulary = {word: id for id, word in enumerate(dict.fromkeys(words))}
        backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        return backend.to_str()
    backend = tokenizers.Tokenizer(models.BPE())
    alphabet: list[str] = []
    if kind == "byte-level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] if kind == "sentencepiece" else []
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 7 + 90 + len(pieces) // 8,
        special_tokens=[*SPECIAL, *pieces],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    text = TEXT.split("\n") if kind == "sentencepiece" else [TEXT]
    backend.train_from_iterator(text, trainer)
    content = json.loads(backend.to_str())
    content["added_tokens"] = []
    return json.dumps(content)


CLASSES = {
    "byte-level": (
        None, "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "RobertaTokenizer",
        "RobertaTokenizerFast", "Qwen2Tokenizer", "GPTNeoXTokenizerFast", "CodeGenTokenizer", "LlamaTokenizerFast",
        "TokenizersBackend", "NobodysTokenizer", "BartTokenizer",
    ),
    "sentencepiece": (None, "PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "GPT2Tokenizer"),
    "wordpiece": (None, "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "PreTrainedTokenizerFast",
        "ElectraTokenizer"),
}  # fmt: skip
FAMILIES = {
    "byte-level": (None, "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "roberta"),
    "sentencepiece": (None, "llama", "mistral", "mixtral"),
    "wordpiece": (None, "bert", "distilbert"),
}
BRACKETS = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}


def make(seed: int) -> Folder:
    """Return the folder of a seed."""
    draw = random.Random(seed)
    kind = draw.choice(("byte-level", "byte-level", "sentencepiece", "wordpiece"))
    content = json.loads(_trained(kind))
    family, named = draw.choice(FAMILIES[kind]), draw.choice(CLASSES[kind])
    folder = Folder(kind, family, {}, content)
    assert folder.config is not None
    if named is not None:
        place = folder.model if family is not None and _chance(draw, 0.1) else folder.config
        place["tokenizer_class"] = named
    _name_tokens(draw, folder)
    _flag(draw, folder)
    _declare(draw, folder)
    _vary_tokenizer_json(draw, folder)
    _drop_files(draw, folder)
    return folder


def _chance(draw: random.Random, share: float) -> bool:
    return draw.random() < share


def _name_tokens(draw: random.Random, folder: Folder) -> None:
    """Name some of the special tokens, plainly, with flags, or in the map beside."""
    config, names = folder.config, {}
    assert config is not None
    if folder.kind == "wordpiece":
        names = {key: token for key, token in BRACKETS.items() if _chance(draw, 0.8)}
    else:
        for role in ("bos", "eos", "unk", "pad"):
            if _chance(draw, 0.6):
                names[f"{role}_token"] = draw.choice(SPECIAL)
        if _chance(draw, 0.3):
            names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
        if _chance(draw, 0.2):
            names["pad_token"] = "<|new pad|>"
    where = draw.choice(("config", "config", "map", "both"))
    for key, token in names.items():
        form = draw.choice(("text", "text", "flags"))
        flags = {
            "content": token,
            "lstrip": key == "mask_token" or _chance(draw, 0.2),
            "rstrip": _chance(draw, 0.2),
            "normalized": _chance(draw, 0.3),
            "single_word": False,
        }
        if where in ("config", "both"):
            config[key] = token if form == "text" else {"__type": "AddedToken", **flags}
    if where in ("map", "both"):
        chosen: dict[str, Any] = {}
        for key, token in names.items():
            flags = {
                "content": token,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
            }
            chosen[key] = token if _chance(draw, 0.5) else flags
        if _chance(draw, 0.2):
            chosen["additional_special_tokens"] = ["<|tool|>", "<|im_end|>"]
        folder.texts["special_tokens_map.json"] = json.dumps(chosen)
    if _chance(draw, 0.2):
        key = draw.choice(("extra_special_tokens", "additional_special_tokens"))
        config[key] = ["<|tool|>", "<|im_end|>"]
    elif _chance(draw, 0.1):
        config["extra_special_tokens"] = {"image_token": "<image>", "boi_token": "<boi>"}
    if _chance(draw, 0.1):
        config["image_token"] = "<image>"
    if _chance(draw, 0.05):
        config["pad_token"] = None


def _flag(draw: random.Random, folder: Folder) -> None:
    """Set some flags of tokenizer_config.json."""
    config = folder.config
    assert config is not None
    for flag in (
        "add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case", "strip_accents",
        "tokenize_chinese_chars", "clean_up_tokenization_spaces", "trim_offsets", "legacy", "split_special_tokens",
    ):  # fmt: skip
        if _chance(draw, 0.12 if flag == "split_special_tokens" else 0.3):
            config[flag] = _chance(draw, 0.6)
    if _chance(draw, 0.3):
        config["model_max_length"] = 512
    place = draw.choice((None, None, "config", "file", "list", "others"))
    if place == "config":
        config["chat_template"] = "{{ in_config }}"
    elif place == "list":
        config["chat_template"] = [
            {"name": "default", "template": "{{ a }}"},
            {"name": "rag", "template": "{{ b }}"},
        ]
    elif place is not None:
        folder.texts["chat_template.jinja"] = "{{ in_file }}"
        if place == "others":
            folder.texts["additional_chat_templates/tools.jinja"] = "{{ tools }}"


def _declare(draw: random.Random, folder: Folder) -> None:
    """List added tokens: in tokenizer_config.json, in added_tokens.json, or in tokenizer.json."""
    config, content = folder.config, folder.tokenizer
    assert config is not None and content is not None
    vocabulary: Mapping[str, int] = content["model"]["vocab"]
    size = max(vocabulary.values()) + 1
    pool = list(BRACKETS.values()) if folder.kind == "wordpiece" else list(SPECIAL)
    entries = []
    for token in pool:
        if _chance(draw, 0.5):
            entries.append((vocabulary[token], token))
    if _chance(draw, 0.4):
        entries += [(size, "<new0>"), (size + 1, "NEW one")]
    listed = {
        id: {
            "content": token,
            "lstrip": _chance(draw, 0.2),
            "rstrip": _chance(draw, 0.2),
            "normalized": _chance(draw, 0.3),
            "single_word": _chance(draw, 0.1),
            "special": _chance(draw, 0.7),
        }
        for id, token in entries
    }
    where = draw.choice(("tokenizer", "tokenizer", "config", "both", "legacy", "none"))
    if where in ("tokenizer", "both"):
        content["added_tokens"] = [{"id": id, **flags} for id, flags in listed.items()]
    if where in ("config", "both"):
        config["added_tokens_decoder"] = {str(id): flags for id, flags in listed.items()}
    if where == "legacy" and size in listed:
        folder.texts["added_tokens.json"] = json.dumps({"<new0>": size, "NEW one": size + 1})


def _vary_tokenizer_json(draw: random.Random, folder: Folder) -> None:
    """Give tokenizer.json another rule, another frame, or stored padding."""
    content = folder.tokenizer
    assert content is not None
    vocabulary = content["model"]["vocab"]
    if folder.kind == "byte-level":
        rule = draw.choice(("gpt2", "gpt2", "digits", "blank"))
        level = {
            "type": "ByteLevel",
            "add_prefix_space": rule == "blank",
            "trim_offsets": True,
            "use_regex": True,
        }
        digits = {"type": "Digits", "individual_digits": True}
        content["pre_tokenizer"] = (
            {"type": "Sequence", "pretokenizers": [digits, level]} if rule == "digits" else level
        )
        if _chance(draw, 0.3):
            content["normalizer"] = {"type": "NFC"}
    if folder.kind == "wordpiece" and _chance(draw, 0.3):
        content["normalizer"]["lowercase"] = False
    if folder.kind == "sentencepiece" and _chance(draw, 0.4):  # as files of Llama 2's time
        blank = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        content["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, blank],
        }
        content["pre_tokenizer"] = None
    if _chance(draw, 0.1):
        del content["model"]["type"]
    if folder.kind != "wordpiece" and _chance(draw, 0.4):
        bos = draw.choice(("<s>", "<|endoftext|>"))
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        backend.post_processor = processors.TemplateProcessing(
            single=[f"{bos}:0", "$A:0"],
            pair=[f"{bos}:0", "$A:0", "$B:1"],
            special_tokens=[(bos, vocabulary[bos])],
        )
        content["post_processor"] = json.loads(backend.to_str())["post_processor"]
    if folder.kind != "wordpiece" and _chance(draw, 0.3):
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    if _chance(draw, 0.1):
        content["truncation"] = {
            "strategy": "LongestFirst",
            "direction": "Left",
            "max_length": 3,
            "stride": 0,
        }
    if _chance(draw, 0.1):
        token = "[PAD]" if folder.kind == "wordpiece" else "<pad>"
        content["padding"] = {
            "strategy": "BatchLongest", "direction": draw.choice(("Left", "Right")), "pad_to_multiple_of": None,
            "pad_id": vocabulary[token], "pad_type_id": 0, "pad_token": token,
        }  # fmt: skip


def _drop_files(draw: random.Random, folder: Folder) -> None:
    """Leave out tokenizer.json, with the vocabulary's own files in its place, or the configuration."""
    content = folder.tokenizer
    assert content is not None
    forms = {"byte-level": ("json", "json", "plain", "both"), "wordpiece": ("json", "json", "plain", "both")}
    form = draw.choice(forms.get(folder.kind, ("json",)))
    named = (folder.config or {}).get("tokenizer_class") or folder.model.get("tokenizer_class")
    if str(named).startswith("Llama"):
        form = "json"  # LlamaTokenizer reads no vocab.json: what it then makes of a folder has no vocabulary
    vocabulary = content["model"]["vocab"]
    if form != "json" and folder.kind == "wordpiece":
        folder.texts["vocab.txt"] = "".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.get))
    elif form != "json":
        folder.texts["vocab.json"] = json.dumps(vocabulary)
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
        end = draw.choice(("\n", "\n", "\r\n"))
        folder.texts["merges.txt"] = end.join(["#version: 0.2", *merges, ""])
    if form == "plain":
        folder.tokenizer = None
    if _chance(draw, 0.1):
        folder.config = None


TEXTS = (
    "", " ", "low lower lowest", " lower", "Once upon a time, there was a girl.", "HELLO Wörld naïve café é", "1234 12.5",
    "a<s>b</s> <mask> c", " x <mask> y ", "<|endoftext|>", "low </s>", "[CLS] hello [MASK] world[SEP]", "<unk> [UNK] <pad>",
    "<new0>NEW one a NEW  one", "<|new pad|> <|tool|><|im_end|>", "<image> image",
    "日本 🙂\n\n\tx", "don't , she . said ! n't",
    "hello , world . it 's we 've", "e\u0301 ﬁ", "<0x41> ▁ a",
)  # fmt: skip
