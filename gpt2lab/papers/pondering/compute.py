"""What pondering costs: operations of training, beside those of a plain model."""

from gpt2lab.model import Backbone, TransformerConfig
from gpt2lab.papers.pondering.options import PonderingOptions
from gpt2lab.training.throughput import flops_per_token


def training_flops(model: Backbone, time_steps: int, *, options: PonderingOptions | None = None) -> float:
    """Return the floating-point operations that training on one token takes, forward and backward.

    options: default those attached to the model; without any it is a plain model. Every extra pass costs what a plain one
    costs (6 a weight), and what it feeds back:

    - embedding: 6 |V| d for the head and as many for the mixture, or with top_k 2 |V| d to find the tokens and 12 K d;
    - hidden, loop: no head; hidden_linear: 6 d² more;
    - pause: `steps` further tokens of a row that is so many times longer, and one head.

    What is computed a second time to save memory is not counted; random steps count as their mean.
    """
    config, total = model.config, model.count_parameters()
    parameters = total.get("active", total["total"])
    if options is None:
        options = next((known for known in model.architectures if isinstance(known, PonderingOptions)), None)
    if options is None:
        return flops_per_token(config, time_steps, parameters)
    d = config.d_model
    added = d * d if options.feedback == "hidden_linear" else d if options.feedback == "pause" else 0
    parameters -= added
    plain = flops_per_token(config, time_steps, parameters)
    steps = (1 + options.random_steps) / 2 if options.random_steps else float(options.steps)
    body = plain - head_flops(config)
    match options.feedback:
        case "embedding":
            fed_back = 2 * head_flops(config)
            if options.top_k is not None:
                fed_back = 2 * config.vocab_size * d + 12 * options.top_k * d
        case "pause":
            longer = flops_per_token(config, int(time_steps * (steps + 1)), parameters)
            return (steps + 1) * (longer - head_flops(config)) + head_flops(config)
        case _:
            fed_back = 6.0 * added
    passes = steps * (body + fed_back)
    if options.detach:  # nothing goes backwards through them
        passes = steps * (body / 3 + (fed_back / 3 if options.top_k is None else 2.0 * config.vocab_size * d))
    return plain + passes


def head_flops(config: TransformerConfig) -> float:
    """Return the operations of the head for one token, forward and backward."""
    return 6.0 * config.vocab_size * config.d_model
