"""Models whose parameters are sharded over ranks by `fully_shard`: each rank holds its rows of the flat vector."""
