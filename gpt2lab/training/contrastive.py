"""Objectives that draw matching texts together and push others apart."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.task_heads import find_head, has_dropout, read_out
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import Objective


def info_nce(
    queries: Tensor,
    positives: Tensor,
    *,
    negatives: Tensor | None = None,
    negative_there: Tensor | None = None,
    group: Tensor | None = None,
    temperature: float = 0.05,
    symmetric: bool = False,
) -> tuple[Tensor, float]:
    """Return -mean_i log(exp(s_ii/τ) / Σ_j exp(s_ij/τ)) in nats, and the share of rows whose positive is nearest.

    queries, positives [batch, width]; s are their inner products (cosines, if they have length 1). j runs over all
    positives of the batch and all negatives [batch, count, width] (those with negative_there [batch, count] false are
    left out). Positives of another row of the same group [batch] are left out too: they are right answers.
    symmetric: the mean with the same loss from positives to queries. van den Oord et al. 2018, eq. 4;
    hard negatives as in Karpukhin et al. 2020, eq. 2.
    """
    if queries.shape != positives.shape:
        raise LabError(f"queries are {list(queries.shape)}, positives {list(positives.shape)}")
    if not temperature > 0:
        raise LabError(f"temperature must be above 0, got {temperature}")
    wide = torch.promote_types(queries.dtype, torch.float32)
    queries, positives = queries.to(wide), positives.to(wide)
    batch = len(queries)
    scores = queries @ positives.T / temperature  # [batch, batch]
    if group is not None:
        same = (group[:, None] == group) & ~torch.eye(batch, dtype=torch.bool, device=group.device)
        scores = scores.masked_fill(same, float("-inf"))
    against = scores
    if negatives is not None:
        hard = queries @ negatives.flatten(0, 1).to(wide).T / temperature  # [batch, batch * count]
        if negative_there is not None:
            hard = hard.masked_fill(~negative_there.flatten(), float("-inf"))
        against = torch.cat([scores, hard], dim=1)
    own = torch.arange(batch, device=queries.device)
    loss = F.cross_entropy(against, own)
    if symmetric:
        loss = (loss + F.cross_entropy(scores.T, own)) / 2
    return loss, float((against.detach().argmax(1) == own).float().mean())


IN_BATCH = "the texts of a batch are each other's negatives, so several micro-batches have fewer than one large batch"


class Contrastive(Objective):
    """Objective of an embedding head on pairs: InfoNCE with in-batch and, if the batch has any, hard negatives.

    Reads batches of `PairBatches`. Where those have no positives, each text is its own: see `SimCSE`. The loop refuses
    it with accumulation.
    """

    indivisible = IN_BATCH

    def __init__(
        self,
        head: str | None = None,
        *,
        temperature: float = 0.05,
        symmetric: bool = False,
        mask_groups: bool = True,
    ) -> None:
        if not temperature > 0:
            raise LabError(f"temperature must be above 0, got {temperature}")
        self.head, self.temperature, self.symmetric, self.mask_groups = (
            head,
            temperature,
            symmetric,
            mask_groups,
        )

    def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a query and the share of queries whose positive is the nearest of the batch."""
        name = find_head(model, self.head, ("embedding",)).name
        if "positive_tokens" not in batch:
            raise LabError("contrastive: the data have no positives; name their field, or train with simcse")

        def embed(tokens: Tensor, mask: Tensor) -> Tensor:
            return read_out(model, (name,), tokens, attention_mask=mask)[name]

        negatives = None
        if "negative_tokens" in batch:
            tokens, mask = batch["negative_tokens"], batch["negative_mask"]
            negatives = embed(tokens.flatten(0, 1), mask.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        loss, accuracy = info_nce(
            embed(batch["tokens"], batch["attention_mask"]),
            embed(batch["positive_tokens"], batch["positive_mask"]),
            negatives=negatives,
            negative_there=batch.get("negative_there"),
            group=batch.get("group") if self.mask_groups else None,
            temperature=self.temperature,
            symmetric=self.symmetric,
        )
        return loss, {"in_batch_accuracy": accuracy}


class SimCSE(Objective):
    """Objective of an embedding head on plain texts: two passes with different dropout are a pair.

    Gao et al. 2021, eq. 4. Reads "tokens", "attention_mask" and "group" of a batch. LabError for a model in training
    that has no dropout: both passes would be the same. The loop refuses it with accumulation.
    """

    indivisible = IN_BATCH

    def __init__(self, head: str | None = None, *, temperature: float = 0.05) -> None:
        if not temperature > 0:
            raise LabError(f"temperature must be above 0, got {temperature}")
        self.head, self.temperature = head, temperature

    def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a text and the share of texts that are nearest to themselves."""
        spec = find_head(model, self.head, ("embedding",))
        if model.training and not has_dropout(model):
            raise LabError(
                "simcse: this model has no dropout, so both views of a text are the same; set one to 0.1"
            )
        views = [
            read_out(model, (spec.name,), batch["tokens"], attention_mask=batch["attention_mask"])[spec.name]
            for _ in range(2)
        ]
        loss, accuracy = info_nce(*views, group=batch.get("group"), temperature=self.temperature)
        return loss, {"in_batch_accuracy": accuracy}
