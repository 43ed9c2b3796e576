"""Back ends outside the lab: a server, a model of transformers, recorded answers."""

from gpt2lab.decode.backends.huggingface import HuggingFaceBackend
from gpt2lab.decode.backends.recorded import Recorded, Recorder
from gpt2lab.decode.backends.server import Server

__all__ = ["HuggingFaceBackend", "Recorded", "Recorder", "Server"]
