"""Model + prompt → tokens: the generation loop, greedy, sampling, beam search, and the interface for others."""

from gpt2lab.decode.beam import Beam
from gpt2lab.decode.generate import Generation, build_decoder, generate
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Decoded, Decoder, Limits, Prompts, embedded_prompts
from gpt2lab.decode.packed import pack
from gpt2lab.decode.prompts import chat_tokens
from gpt2lab.decode.sampling import Sampling

__all__ = [
    "Beam",
    "Decoded",
    "Decoder",
    "Generation",
    "Greedy",
    "Limits",
    "Prompts",
    "Sampling",
    "build_decoder",
    "chat_tokens",
    "embedded_prompts",
    "generate",
    "pack",
]
