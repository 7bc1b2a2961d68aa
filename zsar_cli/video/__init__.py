"""Videos in, model-sized frames out. Nothing in here imports torch: decode workers start without it."""
