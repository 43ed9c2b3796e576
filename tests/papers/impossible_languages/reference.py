"""The hop languages once more, as operations on text in reading order, and GPT-2 once more, slowly and in float64."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gpt2lab.model import Transformer

CLITICS = ["n't", "'ll", "'s", "'re", "'ve", "'m"]
ASCII = r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"""

Row = tuple[str, str, str]
"""A word, its lemma, and Sing or Plur if it is an affected verb, else nothing."""


def written(words: list[str]) -> str:
    """Words with blanks between, clitics behind the word before them."""
    text = ""
    for word in words:
        text += word if not text or word in CLITICS else f" {word}"
    return text


def is_mark(word: str) -> bool:
    return word in CLITICS or all(c in ASCII for c in word)


def word_hop_text(rows: list[Row], k: int, glyphs: dict[str, str]) -> tuple[str, list[bool]]:
    """The text of WordHop: from the last verb to the first, place its marker among the words that are read after it."""
    words = [lemma if number else text for text, lemma, number in rows]
    complete = []
    for i in range(len(rows) - 1, -1, -1):
        if not rows[i][2]:
            continue
        # gap g stands right after words[g]; the walk begins at the gap after the verb minus one, as the code's index does
        at, hopped = i, 0
        while hopped < k and at < len(words) - 1:
            rest = "".join(words[at + 1 :])
            if not any(c.isalnum() for c in rest):
                break
            hopped += 0 if is_mark(words[at]) else 1
            at += 1
        if any(c.isalnum() for c in "".join(words[at + 1 :])):
            while at < len(words) - 1 and is_mark(words[at]):
                at += 1
        if at < len(words) - 1 and words[at + 1] in CLITICS:
            at += 1
        complete.append(hopped == k)
        words.insert(at + 1, glyphs[rows[i][2]])
    return written(words), complete


def token_hop(rows: list[Row], k: int, encode: Callable[[str], list[int]], ids: dict[str, int]) -> list[int]:
    """The ids of TokenHop, with k = 0 of NoHop: cut after every verb (and its clitic), then put markers in from the end."""
    pieces: list[list[str]] = [[]]
    numbers: list[str] = []
    glued = False
    for text, lemma, number in rows:
        if pieces[-1] == [] and numbers and not glued and text in CLITICS and not number:
            pieces[-2][-1] += text
            glued = True
            continue
        glued = False
        pieces[-1].append(lemma if number else text)
        if number:
            numbers.append(number)
            pieces.append([])
    result: list[int] = []
    for j in range(len(pieces) - 1, -1, -1):
        if pieces[j]:
            result = encode((" " if j else "") + written(pieces[j])) + result
        if j:
            cut = min(k, len(result))
            result = [*result[:cut], ids[numbers[j - 1]], *result[cut:]]
    return result


def gpt2_logits(
    model: Transformer, tokens: list[int], swap: tuple[int, int, Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Next-token logits [time, vocab] of one row by GPT-2's equations, and every block's output [time, d_model].

    swap: (layer, position, state), put in the place of that block's output there.
    """
    w = {name: tensor.double() for name, tensor in model.state_dict().items()}
    heads, d, time = model.config.layer(0).n_heads, model.config.d_model, len(tokens)
    x = w["embedding.weight"][torch.tensor(tokens)] + w["position_embedding.weight"][:time]

    def norm(y: Tensor, name: str) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def linear(y: Tensor, name: str) -> Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    outputs = []
    for layer in range(model.config.n_layers):
        block, size = f"blocks.{layer}", d // heads
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attention.qkv").split(d, dim=-1)
        mixed = torch.zeros(time, d, dtype=torch.float64)
        for t in range(time):
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                weights = (k[: t + 1, part] @ q[t, part] / math.sqrt(size)).softmax(0)
                mixed[t, part] = weights @ v[: t + 1, part]
        x = x + linear(mixed, f"{block}.attention.out")
        up = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.up")
        x = x + linear(
            0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3))), f"{block}.mlp.down"
        )
        if swap is not None and swap[0] == layer:
            x = x.clone()
            x[swap[1]] = swap[2]
        outputs.append(x)
    return norm(x, "final_norm") @ w["embedding.weight"].T, outputs


def sentence_loss(model: Transformer, tokens: list[int]) -> float:
    """Mean of -log p over tokens 2 ... n of one sentence, in nats."""
    logits, _ = gpt2_logits(model, tokens)
    return sum(-float(logits[t].log_softmax(0)[tokens[t + 1]]) for t in range(len(tokens) - 1)) / (
        len(tokens) - 1
    )
