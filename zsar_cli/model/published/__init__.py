"""Published checkpoints of the field, on open_clip's towers: one file a family, with what differs from CLIP."""
