"""A tokenizer of codons: DNA in threes, everything else in bytes."""

import tokenizers
from tokenizers import Regex, pre_tokenizers

from gpt2lab.text.genetic_code import CODE
from gpt2lab.text.tokenizer import END_OF_TEXT, Tokenizer, byte_level

_WORD = r"[A-Za-z]+"
_NEXT_CODON = r"\G[ACGT]{3}(?=[ACGT]*$)"
"""From the beginning of a word on, and only as long as nothing but bases follows."""


def codon_level(*, eos: str = END_OF_TEXT) -> Tokenizer:
    """Make the tokenizer of 64 codons, 256 bytes and `eos` (also the bos): 321 ids, nothing is trained, any text is encoded.

    A word of the letters A, C, G and T alone is DNA; it is cut in threes from its first letter on, and one or two bases left
    over at its end are bytes. All other text is bytes: a residue is one token, and no token of DNA. A protein is no word of
    these four letters as soon as it has one other, such as the M at its beginning; DNA that a protein follows without a
    separator is one word with it, so no DNA.
    """
    plain = byte_level(eos=eos)
    vocabulary = {token: id for token, id in plain.vocabulary.items() if token != eos}
    for codon in sorted(CODE):
        vocabulary[codon] = len(vocabulary)
    # Pieces that the vocabulary holds are tokens at once, all others are their bytes: there are no merges.
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            pre_tokenizers.Split(Regex(_NEXT_CODON), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(eos, special=True, normalized=False)])
    id = backend.token_to_id(eos)
    return Tokenizer(backend, bos=id, eos=id)
