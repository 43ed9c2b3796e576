"""Conda, Muon and Sophia on two processes: data parallel and sharded, against one process with the whole batch."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gpt2lab.papers.conda import Conda, Muon
from gpt2lab.papers.sophia import SophiaG

RANKS = 2
STEPS = 4


class Small(nn.Module):
    """Matrices taller, wider and as wide as high, vectors, and a tensor that holds two matrices of different heights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.attn = nn.Linear(6, 6)
        self.mlp = nn.ModuleDict({"up": nn.Linear(6, 10), "down": nn.Linear(10, 6)})
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def stored_together(self) -> dict[str, dict[str, int]]:
        return {"mlp.up": {"gate": 3, "up": 7}}

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.table(ids)
        hidden = hidden + self.attn(hidden).tanh()
        hidden = hidden + self.mlp["down"](self.mlp["up"](hidden).tanh())
        return (hidden @ self.table.weight.T).square().mean()


def batch(step: int) -> Tensor:
    return torch.randint(0, 11, (4 * RANKS,), generator=torch.Generator().manual_seed(step))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, part: Callable[[Tensor], Tensor]) -> None:
    for step in range(STEPS):
        optimizer.zero_grad()
        model(part(batch(step))).backward()
        optimizer.step()
        if isinstance(optimizer, SophiaG):  # any gradient will do for an estimate here
            optimizer.update_curvature(terms=8)


def conda(model: nn.Module, **more: Any) -> torch.optim.Optimizer:
    return Conda.for_model(model, lr=0.05, weight_decay=0.1, refresh=2, **more)


def muon(model: nn.Module) -> torch.optim.Optimizer:
    return Muon.for_model(model, lr=0.01)


def sophia(model: nn.Module) -> torch.optim.Optimizer:
    return SophiaG.for_model(model, lr=0.05, gamma=0.1)


def on_rank(rank: int, port: int, folder: str) -> None:
    """Train on one of the ranks and write the weights down; run in a process of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)

    def mine(ids: Tensor) -> Tensor:
        return ids[4 * rank : 4 * rank + 4]

    ends = dict[str, Tensor]()
    for name, make in (("conda", conda), ("sophia", sophia), ("muon", muon)):
        model = Small().double()
        fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
        optimizer = make(model)
        steps(model, optimizer, mine)
        moment = next(iter(optimizer.state[model.mlp["up"].weight].values()))
        assert tuple(moment.to_local().shape) == (5, 6)
        if isinstance(optimizer, SophiaG):
            ends["share"] = torch.tensor(optimizer.unclipped_share())
        for place, parameter in model.named_parameters():
            ends[f"{name} sharded.{place}"] = parameter.full_tensor().detach()  # type: ignore[attr-defined]  # a DTensor
    model = Small().double()
    if rank == 1:
        _turn_bases_round()
    steps(nn.parallel.DistributedDataParallel(model), conda(model, process_group=dist.group.WORLD), mine)
    for place, parameter in model.named_parameters():
        ends[f"conda data parallel.{place}"] = parameter.detach().clone()
    torch.save(ends, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def _turn_bases_round() -> None:
    """Stand for other hardware: a decomposition whose vectors are another basis altogether."""
    found = torch.linalg.svd

    def other(matrix: Tensor, **given: Any) -> Any:
        left, values, right = found(matrix, **given)
        return left.flip(-1).roll(1, -2), values, right.roll(1, -1)

    torch.linalg.svd = other  # type: ignore[assignment]  # in this process only


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    alone = {"conda": Small().double(), "sophia": Small().double(), "muon": Small().double()}
    optimizers = {
        "conda": conda(alone["conda"]),
        "sophia": sophia(alone["sophia"]),
        "muon": muon(alone["muon"]),
    }
    for name, model in alone.items():
        steps(model, optimizers[name], lambda ids: ids)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(on_rank, (port, str(tmp_path)), nprocs=RANKS)  # type: ignore[no-untyped-call]  # torch's
    for rank in range(RANKS):
        ends = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for kind in ("conda sharded", "conda data parallel", "sophia sharded", "muon sharded"):
            for place, parameter in alone[kind.split()[0]].named_parameters():
                near = 1e-3 if "muon" in kind else 1e-9  # it works in bf16
                assert torch.allclose(ends[f"{kind}.{place}"], parameter, atol=near), (rank, kind, place)
        share = optimizers["sophia"].unclipped_share()  # type: ignore[attr-defined]  # Sophia has it
        assert 0.1 < share < 0.9
        assert abs(float(ends["share"]) - share) < 1e-6
