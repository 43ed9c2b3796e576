"""An index of vectors: exact search in bounded memory, or approximate through faiss; saved with its model's fingerprint."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.base.files import atomic_folder, atomic_write, check_sums, restore, write_sums
from gpt2lab.base.json_files import read_object
from gpt2lab.measures.prediction import embed
from gpt2lab.model.checkpoints.tensor_files import write_safetensors
from gpt2lab.model.finite import all_finite
from gpt2lab.model.task_heads import Pooling

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_VECTORS, _HEADER = "vectors.safetensors", "index.json"
_CHUNK = 1 << 24
"""Scores held at a time: 64 MiB in float32."""
Method = Literal["exact", "flat", "ivf", "hnsw"]


@dataclass(frozen=True)
class Hits:
    """The nearest documents of each query, the best first; equal scores in the order of the index."""

    ids: list[list[str]]
    """Names of the documents."""
    scores: list[list[float]]
    """Their inner products with the query: cosines, for vectors of length 1."""


class Index:
    """Vectors with names, searched by inner product.

    vectors [documents, width] float32; `fingerprint` tells which model made them (see `model_fingerprint`).
    """

    def __init__(self, ids: Sequence[str], vectors: Tensor, *, fingerprint: str = "") -> None:
        """LabError for two documents of one name, another number of vectors than names, or numbers not finite."""
        if vectors.dim() != 2 or len(ids) != len(vectors):
            raise LabError(
                f"an index needs a vector for each name, got {len(ids)} names and {list(vectors.shape)}"
            )
        if len(set(ids)) != len(ids):
            twice = next(name for name in ids if list(ids).count(name) > 1)
            raise LabError(f"an index needs different names, and {twice!r} stands there twice")
        if not len(ids):
            raise LabError("an index needs a document")
        if not all_finite(vectors):
            raise LabError("an index needs finite vectors; some are NaN or infinite")
        self.ids, self.vectors, self.fingerprint = list(ids), vectors.float().contiguous(), fingerprint

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, queries: Tensor, k: int = 10, *, method: Method = "exact", seed: int = 0) -> Hits:
        """Return the k nearest documents of each query [queries, width].

        "exact" holds at most 64 MiB of scores at a time. The others are faiss's (extra `retrieval`): "flat" is exact
        too, "ivf" looks into the nearest of √n cells, "hnsw" walks a graph; both may miss some. LabError: k beyond the
        documents, another width, faiss not installed.
        """
        if queries.dim() != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise LabError(
                f"queries are {list(queries.shape)}, the index's vectors have {self.vectors.shape[1]} numbers"
            )
        if not 1 <= k <= len(self):
            raise LabError(f"k must lie between 1 and the {len(self)} documents of the index, got {k}")
        if method == "exact":
            places, scores = self._exact(queries.float(), k)
        else:
            places, scores = self._faiss(queries.float(), k, method, seed)
        names = [[self.ids[place] for place in row if place >= 0] for row in places.tolist()]
        kept = [row[: len(own)] for row, own in zip(scores.tolist(), names, strict=True)]
        return Hits(names, kept)

    def _exact(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        rows = max(1, min(len(queries), 256))
        columns = max(k, _CHUNK // rows)
        found = [self._nearest(part, k, columns) for part in queries.split(rows)]
        if not found:
            return torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
        return torch.cat([places for places, _ in found]), torch.cat([scores for _, scores in found])

    def _nearest(self, queries: Tensor, k: int, columns: int) -> tuple[Tensor, Tensor]:
        """Keep the best k of each query over pieces of the index; ties go to the document that stands first."""
        best = torch.empty(len(queries), 0)
        where = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self), columns):
            piece = self.vectors[start : start + columns]
            scores = torch.cat([best, queries @ piece.T], dim=1)
            places = torch.arange(start, start + len(piece)).expand(len(queries), -1)
            where = torch.cat([where, places], dim=1)
            # A stable sort of all would be slow: take what is above or equal to the k-th, then order that.
            count = min(k, scores.shape[1])
            edge = scores.topk(count, dim=1).values[:, -1:]
            order = _first_k(scores, edge, count)
            best, where = scores.gather(1, order), where.gather(1, order)
        return where, best

    def _faiss(self, queries: Tensor, k: int, method: Method, seed: int) -> tuple[Tensor, Tensor]:
        try:
            import faiss
        except ImportError as error:
            raise LabError(
                f"method {method} needs faiss; {install('retrieval')}, or search with method=exact"
            ) from error
        built: Any = _faiss_index(faiss, self.vectors.numpy(), method, seed)
        scores, places = built.search(queries.numpy(), k)
        return torch.from_numpy(places), torch.from_numpy(scores)

    def save(self, folder: Path | str) -> None:
        """Write vectors (safetensors), names with the model's fingerprint (JSON) and checksums; whole or not at all."""
        with atomic_folder(folder) as temporary:
            write_safetensors({"vectors": self.vectors}, temporary / _VECTORS)
            header = {"model": self.fingerprint, "width": self.vectors.shape[1], "ids": self.ids}
            atomic_write(temporary / _HEADER, json.dumps(header, ensure_ascii=False) + "\n")
            write_sums(temporary)

    @staticmethod
    def load(folder: Path | str, *, fingerprint: str | None = None) -> "Index":
        """Open a saved index. LabError for a damaged one, and for one of another model than `fingerprint` names."""
        folder = Path(folder)
        restore(folder)
        if not (folder / _HEADER).is_file():
            raise LabError(f"{folder}: no whole index ({_HEADER} is missing)")
        check_sums(folder)
        try:
            header = read_object(folder / _HEADER)
            vectors = load_file(folder / _VECTORS)["vectors"]
            found = Index(header["ids"], vectors, fingerprint=header["model"])
        except (OSError, KeyError, SafetensorError) as error:
            raise LabError(f"{folder}: no whole index ({error})") from None
        if fingerprint is not None and found.fingerprint != fingerprint:
            raise LabError(
                f"{folder}: made with another model (or other settings); embed the corpus anew with this one"
            )
        return found


def _first_k(scores: Tensor, edge: Tensor, count: int) -> Tensor:
    """Places of the `count` largest scores of each row [rows, columns], falling; of equal ones the first."""
    rows = []
    for row, limit in zip(scores, edge, strict=True):
        candidates = (row >= limit).nonzero().squeeze(1)
        rows.append(candidates[row[candidates].sort(descending=True, stable=True).indices[:count]])
    return torch.stack(rows)


def _faiss_index(faiss: Any, vectors: Any, method: Method, seed: int) -> Any:
    documents, width = vectors.shape
    if method == "flat":
        built = faiss.IndexFlatIP(width)
    elif method == "hnsw":
        built = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efSearch = 128
    else:
        cells = max(1, int(documents**0.5))
        built = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        built.cp.seed, built.nprobe = seed, max(1, cells // 4)
        built.cp.min_points_per_centroid = 1  # else faiss warns of small corpora on its own channel
        built.train(vectors)
    built.add(vectors)
    return built


def model_fingerprint(lm: "LanguageModel", *settings: object) -> str:
    """Return a SHA-256 (hex) of a model's weights, configuration and tokenizer, and of how texts are embedded."""
    digest = hashlib.sha256(repr((lm.config, lm.model.architectures, settings)).encode())
    if lm.tokenizer is not None:
        digest.update(lm.tokenizer.fingerprint.encode())
    if (
        "modules.json" in lm.side_files
    ):  # a sentence encoder: pooling and longest input stand in files beside it
        for file in sorted(name for name in lm.side_files if name.endswith(".json")):
            digest.update(file.encode() + lm.side_files[file])
    for name, tensor in _tensors(lm):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(lm: "LanguageModel") -> Iterator[tuple[str, Tensor]]:
    for name, tensor in lm.model.state_dict().items():
        yield name, tensor.reshape(-1)


def build_index(
    lm: "LanguageModel",
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    head: str | None = None,
    pooling: Pooling | None = None,
    prefix: str = "",
    batch_size: int = 32,
) -> Index:
    """Embed texts (see `embed`) into an index; its fingerprint is that of the model, head, pooling and prefix."""
    vectors = embed(lm, texts, head=head, pooling=pooling, prefix=prefix, batch_size=batch_size)
    return Index(ids, vectors, fingerprint=model_fingerprint(lm, head, pooling, prefix))
