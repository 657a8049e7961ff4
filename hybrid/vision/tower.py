"""MoonViT-3D with its projector: patches of images and frames in, rows of the language model out.

    patches uint8 -> normalised -> patch_embed + positions   x [n, D]
                  -> blocks                                  one after the other, over all items
                  -> final_layernorm -> merged -> projector  [tokens, hidden_size]       (spec §3.6)

A group is what goes through the linear layers together. A GPU takes all items of a pass as one
group. On the CPU each item is a group of its own, so that its features depend on nothing else in
the pass; there a block's weights are widened once for all groups, each into the same memory.

Memory on the CPU, beside the weights: x of all items; q, k and v of one; a block in float32; the
scratch of a piece for each thread. The largest item that preprocessing makes, 4 frames of 5,352
patches, takes 395 MB, K2.5's block 61 MB, its piece of 512 rows 26 MB. The projector in float32,
217 MB, comes when q, k and v are gone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.config import VisionConfig
from hybrid.gpu_attention.weights import WeightReader
from hybrid.vision import positions
from hybrid.vision.block import Affine, Block, attend
from hybrid.vision.media import Item
from hybrid.vision.media_config import MediaConfig
from hybrid.vision.patches import normalised
from hybrid.vision.pieces import Crew, crew
from hybrid.vision.projector import Projector, merged

QUERY_ROWS = 1024  # that attend at a time: 0.15 s of one core for the largest item (Zen 3)


@dataclass(frozen=True, slots=True)
class Group:
    """Items that share the linear layers."""

    grids: list[tuple[int, int, int]]
    x: Tensor  # [n, D]
    rotation: Tensor  # complex64 [n, head_dim / 2]

    @property
    def spans(self) -> list[slice]:
        """The rows of each item."""
        ends = np.cumsum([0, *(t * h * w for t, h, w in self.grids)]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]


class Tower:
    """All weights of vision, on one device."""

    def __init__(
        self,
        vision: VisionConfig,
        media: MediaConfig,
        hidden_size: int,
        reader: WeightReader,
        compute: torch.dtype,
        threads: int | None = None,
    ) -> None:
        """Read everything through `reader`; `threads` compute on the CPU (None: as torch does)."""
        heads = vision.vt_num_attention_heads
        self.vision = vision
        self.media = media
        self.hidden_size = hidden_size
        self.device = reader.device
        self.compute = compute
        self.threads = threads or torch.get_num_threads()
        self._patch_embed = Affine.read(reader, "vision_tower.patch_embed.proj")
        self._table = reader("vision_tower.patch_embed.pos_emb.weight")
        blocks = range(vision.vt_num_hidden_layers)
        self._blocks = [Block.read(reader, index, heads) for index in blocks]
        self._final = Affine.read(reader, "vision_tower.encoder.final_layernorm")
        self._projector = Projector.read(reader, vision.projector_ln_eps)

    @torch.inference_mode()
    def features(
        self, items: Sequence[Item], poll: Callable[[], None] = lambda: None
    ) -> list[NDArray[np.float32]]:
        """Rows [item.tokens, hidden_size] that take the place of each item's placeholders.

        `poll` is called before each block and many times within it; what it raises abandons the
        pass.
        """
        if not items:
            return []
        with crew(self.device, self.threads, poll) as workers:
            together = [items] if workers.whole else [[item] for item in items]
            groups = [self._embedded(group, workers) for group in together]
            for block in self._computable(workers):
                poll()
                for group in groups:
                    _advance(group, block, workers)
            final, projector = self._final.to(self.compute), self._projector.to(self.compute)
            return [
                rows
                for group in groups
                for rows in self._projected(group, final, projector, workers)
            ]

    def _computable(self, workers: Crew) -> Iterator[Block]:
        """The blocks in the type to compute in: as they are, or each in the same memory."""
        if self._table.dtype == self.compute:
            yield from self._blocks
            return
        room = self._blocks[0].empty_like(self.compute)
        for stored in self._blocks:
            pairs = zip(room.parts, stored.parts, strict=True)
            workers.each(partial(wide.take, narrow) for wide, narrow in pairs)
            yield room

    def _embedded(self, items: Sequence[Item], workers: Crew) -> Group:
        weight = self._patch_embed.weight.flatten(1)  # [D, 3 * patch * patch]
        embed = Affine(weight, self._patch_embed.bias).to(self.compute)
        turns = [
            positions.rotary(h, w, self._head_dim).repeat(t, 1)
            for t, h, w in (item.grid for item in items)
        ]
        return Group(
            grids=[item.grid for item in items],
            x=torch.cat([self._placed(item, embed, workers) for item in items]),
            rotation=torch.cat(turns).to(self.device),
        )

    @property
    def _head_dim(self) -> int:
        return self.vision.vt_hidden_size // self.vision.vt_num_attention_heads

    def _placed(self, item: Item, embed: Affine, workers: Crew) -> Tensor:
        """One item's patches as rows [n, D], with their positions."""
        t, h, w = item.grid
        size = self.vision.vt_hidden_size
        x = torch.empty(t, h * w, size, dtype=self.compute, device=self.device)
        rows = x.flatten(0, 1)

        def work(piece: slice) -> None:
            pixels = torch.from_numpy(normalised(item.patches[piece], self.media))
            rows[piece] = embed.linear(pixels.to(self.device, self.compute))

        workers.over(len(rows), work)
        places = positions.table(self._table, h, w)  # [h * w, D]
        frames = positions.temporal(t, size).to(self.device) if t > 1 else None
        for frame in range(t):
            place = places if frames is None else places + frames[frame]
            x[frame] = x[frame].float() + place
        return rows

    def _projected(
        self, group: Group, final: Affine, projector: Projector, workers: Crew
    ) -> list[NDArray[np.float32]]:
        _in_place(group.x, final.norm, workers)
        places = zip(group.spans, group.grids, strict=True)
        groups = torch.cat([merged(group.x[span], grid) for span, grid in places])
        out = torch.empty(
            len(groups), self.hidden_size, dtype=self.compute, device=self.device
        )  # [tokens, hidden_size]

        def work(piece: slice) -> None:
            out[piece] = projector.projected(groups[piece])

        workers.over(len(groups), work)
        counts = [h * w // groups.shape[1] for _, h, w in group.grids]
        return [rows.float().cpu().numpy().copy() for rows in out.split(counts)]


def _in_place(x: Tensor, change: Callable[[Tensor], Tensor], workers: Crew) -> None:
    def work(piece: slice) -> None:
        x[piece] = change(x[piece])

    workers.over(len(x), work)


def _advance(group: Group, block: Block, workers: Crew) -> None:
    """Take the rows of a group through a block, in place."""
    x = group.x
    size = x.shape[1] // block.heads
    q, k, v = torch.empty(3, block.heads, len(x), size, dtype=x.dtype, device=x.device)

    def project(piece: slice) -> None:
        qkv = block.projected(x[piece], group.rotation[piece])
        for target, part in zip((q, k, v), qkv.unbind(1), strict=True):
            target[:, piece] = part.transpose(0, 1)

    def finish(piece: slice) -> None:
        attended = q[:, piece].transpose(0, 1).flatten(1)
        x[piece] = block.finished(x[piece], attended)

    workers.over(len(x), project)
    for span in group.spans:
        _attend(q[:, span], k[:, span], v[:, span], workers)
    workers.over(len(x), finish)


def _attend(q: Tensor, k: Tensor, v: Tensor, workers: Crew) -> None:
    """Attention of one item [heads, n, d]; what a query finds takes its place in q."""

    def work(heads: slice, piece: slice) -> None:
        q[heads, piece] = attend(q[heads, piece], k[heads], v[heads])

    workers.each(
        partial(work, heads, piece)
        for heads in workers.pieces(len(q), 1)
        for piece in workers.pieces(q.shape[1], QUERY_ROWS)
    )
