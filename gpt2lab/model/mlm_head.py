"""What reads the final states of bidirectional models: the transform before the vocabulary's matrix, and the pooler."""

from torch import Tensor, nn

from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.feedforward import ACTIVATIONS
from gpt2lab.model.forward import Seen
from gpt2lab.model.norms import Norm


class HeadTransform(nn.Module):
    """norm(activation(dense x)), which the head's matrix reads in x's place; x [..., d_model] → same.

    Devlin et al. 2019, in their code; the matrix then has a bias for each token.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = config.head_activation or config.activation
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.norm = Norm(config, "mlm_head.ln")

    def forward(self, x: Tensor, run: Seen) -> Tensor:
        """Transform final states."""
        pre = run.see(self.dense(x), "mlm_head.hook_pre")
        return self.norm(run.see(ACTIVATIONS[self.activation](pre), "mlm_head.hook_post"), run)


class Pooler(nn.Module):
    """tanh(dense(state of the first token)): one vector for a text (Devlin et al. 2019, section 3.1 and their code)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Pool states x [batch, time, d_model] → [batch, d_model]; the first token is the mask's first real one."""
        if attention_mask is None:
            first = x[:, 0]
        else:
            place = attention_mask.long().argmax(1)  # of several equals, the first
            first = x.take_along_dim(place[:, None, None], dim=1)[:, 0]
        return self.dense(first).tanh()
