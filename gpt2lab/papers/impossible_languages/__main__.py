"""Write text in one of the fifteen languages, `python -m gpt2lab.papers.impossible_languages LANGUAGE --data ... --out DIR`.

The folder holds train and test sentences as tokens and as ids, the tokenizers, and a manifest with what became of every
sentence. `gpt2lab train --data DIR/train.jsonl --tokenizer DIR/tokens` trains on exactly these ids.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2lab.base.errors import LabError, system_error
from gpt2lab.base.settings import add_arguments, build, given
from gpt2lab.papers.impossible_languages.languages import NAMES, language

PROGRAM = "python -m gpt2lab.papers.impossible_languages"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is perturbed, and with which tokenizer."""

    data: tuple[str, ...]
    """Text: files, folders, hub:ID, a built-in source. Annotated: CoNLL-U, JSON, agreement:SIZE:SEED (generated)."""
    out: str
    """Folder that is written."""
    tokenizer: str = "auto"
    """Folder or hub id of a model or tokenizer; auto trains a byte-level BPE on the data."""
    vocab_size: int = 4000
    """Vocabulary size of a tokenizer trained on the data."""
    test: int = 1000
    """Sentences held out."""
    seed: int = 0
    """Seed of what is held out and of the order of the training sentences; not of the language."""
    approximate: bool = False
    """Tag text by rules for a hop language; they overlook verbs."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""


def main(words: Sequence[str] | None = None) -> int:
    """Write the folder and print its manifest as JSON; returns the exit status: 0, or 2 for a mistake."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        allow_abbrev=False,
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"languages: {', '.join(NAMES)}, and with other seeds, windows and distances",
    )
    parser.add_argument(
        "language", help="such as shuffle_local3; a number at its end is seed, window or distance"
    )
    add_arguments(parser, Options)
    arguments = parser.parse_args(words)
    try:
        manifest = written(arguments.language, build(Options, given(arguments, Options), PROGRAM))
    except (LabError, OSError) as error:
        said = system_error(error) if isinstance(error, OSError) else " ".join(str(error).split())
        print(f"{PROGRAM.split('.')[-1]}: {said}", file=sys.stderr)  # noqa: T201  # a command line of its own
        return 2
    print(json.dumps(manifest, indent=2, ensure_ascii=False))  # noqa: T201  # a command line of its own
    return 0


def written(name: str, options: Options) -> dict[str, object]:
    """Write the corpus that the options ask for and return its manifest. LabError as for `write_corpus`."""
    chosen = language(name)
    from gpt2lab.papers.impossible_languages.corpus import sentences_of, write_corpus
    from gpt2lab.text.tokenizer import train_bpe
    from gpt2lab.text.tokenizer_files import load_tokenizer

    if options.tokenizer == "auto":
        texts = (
            sentence.text
            for sentence in sentences_of(
                options.data, annotated=chosen.annotated, approximate=options.approximate, field=options.field
            )
        )
        tokenizer = train_bpe(texts, options.vocab_size)
    else:
        tokenizer = load_tokenizer(options.tokenizer)
    return write_corpus(
        chosen,
        options.data,
        tokenizer,
        options.out,
        test=options.test,
        seed=options.seed,
        approximate=options.approximate,
        field=options.field,
    ).manifest


if __name__ == "__main__":
    sys.exit(main())
