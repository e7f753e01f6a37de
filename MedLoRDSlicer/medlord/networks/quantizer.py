"""Vector quantisation with an exponential-moving-average codebook, in bounded memory.

van den Oord et al., "Neural Discrete Representation Learning" (arXiv 1711.00937), appendix A.1. Numbers and
state-dict names equal MONAI's `EMAQuantizer`; the full distance matrix and the one-hot matrix, 64 GiB each for
a 128x128x64 latent with 16384 codes, are never built.
"""

from __future__ import annotations

import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch import nn

DEFAULT_CHUNK_BYTES = 64 * 2**20

_CACHE_BYTES = 2**20
"""Distances at a time on a CPU: what stays in a core's cache is searched three times as fast as 64 MiB."""


def search_bytes(chunk_bytes: int, device_type: str) -> int:
    """Bytes of distances that `nearest_codes` holds at a time on "cpu" or another kind of device."""
    return min(chunk_bytes, _CACHE_BYTES) if device_type == "cpu" else chunk_bytes


def nearest_codes(
    vectors: torch.Tensor, codebook: torch.Tensor, chunk_bytes: int = DEFAULT_CHUNK_BYTES
) -> torch.Tensor:
    """Index of the nearest code of every vector: argmin_k |e_k|^2 - 2 x.e_k, in float32, in chunks of rows.

    `vectors` is (n, dim), `codebook` (codes, dim); the result is (n,) int64. Of equally near codes the first
    wins. At most `chunk_bytes` bytes of distances exist at a time (at least one row of them), on a CPU 1 MiB.
    """
    chunk_bytes = search_bytes(chunk_bytes, vectors.device.type)
    with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
        codebook = codebook.float()
        squared_norms = (codebook**2).sum(dim=1)
        transposed = codebook.t().contiguous()
        rows = max(1, chunk_bytes // (4 * len(codebook)))
        indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
        for start in range(0, len(vectors), rows):
            chunk = vectors[start : start + rows].float()
            distances = torch.addmm(squared_norms, chunk, transposed, alpha=-2)
            indices[start : start + rows] = distances.min(dim=1).indices
    return indices


class ChunkedQuantizer(EMAQuantizer):
    """MONAI's EMA quantiser with a chunked search, a one-hot-free update and optional revival of dead codes.

    In training mode every forward pass updates the codebook: N_k <- decay N_k + (1-decay) count_k,
    w_k <- decay w_k + (1-decay) sum of the vectors assigned to k, e_k = w_k / smoothed N_k.

    `revival_threshold` > 0 (for training from scratch; 0 = off) takes the first training batch as the initial
    codebook and replaces every code whose N_k falls below that fraction of the mean N by a vector of the
    present batch. The draws come from `revival_generator`, or from torch's global CPU generator when it is
    None, so that a run which saves the state of that generator resumes exactly.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        revival_threshold: float = 0.0,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> None:
        super().__init__(3, num_embeddings, embedding_dim, commitment_cost, decay, epsilon)
        self.revival_threshold = revival_threshold
        self.chunk_bytes = chunk_bytes
        self.revival_generator: torch.Generator | None = None

    def flatten(self, latents: torch.Tensor) -> torch.Tensor:
        """(batch, dim, i, j, k) -> (batch*i*j*k, dim) float32."""
        return latents.float().permute(0, 2, 3, 4, 1).reshape(-1, self.embedding_dim)

    def indices(self, latents: torch.Tensor) -> torch.Tensor:
        """Nearest codes of latents (batch, dim, i, j, k) as int64 (batch, i, j, k)."""
        found = nearest_codes(self.flatten(latents), self.embedding.weight, self.chunk_bytes)
        return found.view(latents.shape[0], *latents.shape[2:])

    def quantize(self, inputs: torch.Tensor) -> torch.Tensor:
        """Alias of `indices` under MONAI's name; unlike MONAI's it returns the indices alone, no one-hot matrix."""
        return self.indices(inputs)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (batch, dim, i, j, k) -> (quantised float32, commitment loss scalar, indices int64).

        The quantised values are exactly codes; their gradient passes straight through to `inputs`.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.float()
            vectors = self.flatten(inputs).detach()
            if self.training and self.revival_threshold > 0 and not self.ema_cluster_size.any():
                self._initialise_from(vectors)
            indices = nearest_codes(vectors, self.embedding.weight, self.chunk_bytes)
            shaped = indices.view(inputs.shape[0], *inputs.shape[2:])
            quantized = self.embed(shaped)
            if self.training:
                self._update(vectors, indices)
            loss = self.commitment_cost * nn.functional.mse_loss(quantized, inputs)
            if inputs.requires_grad:
                # adds exactly zero: the values stay codes to the last bit, the gradient is the identity
                quantized = quantized + (inputs - inputs.detach())
        return quantized, loss, shaped

    @torch.no_grad()
    def _update(self, vectors: torch.Tensor, indices: torch.Tensor) -> None:
        counts = torch.bincount(indices, minlength=self.num_embeddings).float()
        sums = torch.zeros_like(self.ema_w).index_add_(0, indices, vectors)
        self.distributed_synchronization(counts, sums)
        self.ema_cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.ema_w.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        total = self.ema_cluster_size.sum()
        smoothed = (
            (self.ema_cluster_size + self.epsilon) / (total + self.num_embeddings * self.epsilon) * total
        )
        self.embedding.weight.copy_(self.ema_w / smoothed.unsqueeze(1))
        if self.revival_threshold > 0:
            dead = self.ema_cluster_size < self.revival_threshold * total / self.num_embeddings
            self._restart(dead.nonzero().flatten(), vectors, total / self.num_embeddings)

    @torch.no_grad()
    def _initialise_from(self, vectors: torch.Tensor) -> None:
        every_code = torch.arange(self.num_embeddings, device=vectors.device)
        self._restart(every_code, vectors, vectors.new_tensor(len(vectors) / self.num_embeddings))

    def _restart(self, codes: torch.Tensor, vectors: torch.Tensor, cluster_size: torch.Tensor) -> None:
        """Put `codes` on vectors drawn from the batch, with the weight of an averagely used code."""
        if not len(codes):
            return
        rounds = -(-len(codes) // len(vectors))
        draws = [torch.randperm(len(vectors), generator=self.revival_generator) for _ in range(rounds)]
        chosen = vectors[torch.cat(draws)[: len(codes)].to(vectors.device)]
        self.embedding.weight[codes] = chosen
        self.ema_w[codes] = chosen * cluster_size
        self.ema_cluster_size[codes] = cluster_size
