"""A learnable stream for tests of the loop: each token is the one before it plus one, with padding now and then."""

import torch


class Counting:
    """batches[i]: rows that count upwards modulo 50 from a random start; `padded` cuts some rows short."""

    def __init__(self, batch: int = 4, time: int = 12, *, padded: bool = False) -> None:
        self.batch, self.time, self.padded = batch, time, padded

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        start = torch.randint(0, 50, (self.batch, 1), generator=generator)
        rows = (start + torch.arange(self.time + 1)) % 50
        batch = {"tokens": rows[:, :-1], "targets": rows[:, 1:].clone()}
        if self.padded:
            lengths = torch.randint(1, self.time + 1, (self.batch, 1), generator=generator)
            batch["attention_mask"] = (torch.arange(self.time) < lengths).long()
            batch["targets"][batch["attention_mask"] == 0] = -100
        return batch
