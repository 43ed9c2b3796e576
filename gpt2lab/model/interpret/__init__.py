"""Reading models: lens, decomposition, attribution, patching, ablation, neurons, edits of weights, files of activations.

All are functions of a model and tokens; they work through `Transformer.tap`, leave the model as it was, and switch
dropout off while they run it.
"""

from gpt2lab.model.interpret.ablation import ablate
from gpt2lab.model.interpret.artefacts import Artefact, load_activations, save_activations
from gpt2lab.model.interpret.attribution import direct_effect, dla, logit_bias, nmae, target_direction
from gpt2lab.model.interpret.decomposition import Decomposition, decompose
from gpt2lab.model.interpret.edits import edited
from gpt2lab.model.interpret.lens import (
    Unembedding,
    as_read,
    final_scale,
    logit_lens,
    normalise,
    processed_unembed,
)
from gpt2lab.model.interpret.neurons import NeuronTable, neuron_table, output_vectors
from gpt2lab.model.interpret.patching import Sweep, attribution_patch, patch_sweep

__all__ = [
    "Artefact",
    "Decomposition",
    "NeuronTable",
    "Sweep",
    "Unembedding",
    "ablate",
    "as_read",
    "attribution_patch",
    "decompose",
    "direct_effect",
    "dla",
    "edited",
    "final_scale",
    "load_activations",
    "logit_bias",
    "logit_lens",
    "neuron_table",
    "nmae",
    "normalise",
    "output_vectors",
    "patch_sweep",
    "processed_unembed",
    "save_activations",
    "target_direction",
]
