"""``--ray``: predict and eval on a Ray cluster, decoding and the model in stages of their own (docs/distributed.md)."""
