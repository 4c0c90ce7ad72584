"""Which rows a rank holds, against cutting the parameters themselves, and random vectors drawn in pieces."""

import pytest
import torch

from landscape.objective.sharded.layout import Layout
from landscape.operators.sharded_space import ShardedSpace
from landscape.operators.vectors import VectorSpace
from landscape.ranks import Ranks

SHAPES = [torch.Size(shape) for shape in [(5, 3), (4, 6), (1,), (2, 4, 3), (7,), (0, 3)]]
DIMS = [0, 1, 0, 1, 0, 0]


def cut(whole, rank, ranks):
    """The rank's rows by `torch.chunk` of every parameter."""
    pieces = []
    for part, shape, dim in zip(whole.split([s.numel() for s in SHAPES]), SHAPES, DIMS, strict=True):
        chunks = part.view(*shape, *whole.shape[1:]).chunk(ranks, dim)
        pieces += [chunks[rank].reshape(-1, *whole.shape[1:])] if rank < len(chunks) else []
    return torch.cat(pieces)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_rows_of_all_ranks_make_the_whole_vector(ranks):
    whole = torch.randn(sum(shape.numel() for shape in SHAPES), 2)
    rebuilt, index = torch.full_like(whole, torch.nan), torch.randperm(len(whole))
    for rank in range(ranks):
        layout = Layout(SHAPES, DIMS, rank, ranks)
        rows = layout.local(whole)
        assert torch.equal(rows, cut(whole, rank, ranks))
        for step in (16, 48):
            windows = list(layout.windows(step))
            assert min(stop - start for start, stop in windows) >= 16
            assert torch.equal(torch.cat([layout.kept(whole[a:b], a) for a, b in windows]), rows)
        row, held = layout.positions(index)
        assert torch.equal(rows[row[held]], whole[index[held]])
        assert int(held.sum()) == layout.rows
        layout.place(rebuilt, rows)
    assert torch.equal(rebuilt, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["normal", "rademacher"])
def test_a_random_vector_is_bit_for_bit_the_one_that_a_single_process_draws(kind, dtype, monkeypatch):
    monkeypatch.setattr("landscape.operators.sharded_space._DRAWN", 32)
    size = sum(shape.numel() for shape in SHAPES)
    expected = VectorSpace(size, dtype, torch.device("cpu")).random(2, kind, torch.Generator().manual_seed(3))
    for ranks in (1, 2, 3):
        for rank in range(ranks):
            space = ShardedSpace(Layout(SHAPES, DIMS, rank, ranks), Ranks(), dtype, torch.device("cpu"))
            rows = space.random(2, kind, torch.Generator().manual_seed(3))
            assert torch.equal(rows, space.shard(expected))
            assert rows.dtype == dtype


def test_unit_vectors_have_coordinates_of_the_whole():
    size = sum(shape.numel() for shape in SHAPES)
    for rank in range(3):
        space = ShardedSpace(Layout(SHAPES, DIMS, rank, 3), Ranks(), torch.float64, torch.device("cpu"))
        assert torch.equal(space.unit([0, 17, -1]), space.shard(torch.eye(size, dtype=torch.float64)[:, [0, 17, -1]]))
        with pytest.raises(IndexError, match="coordinates lie in"):
            space.unit([size])
