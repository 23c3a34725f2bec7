"""From images to corners: checkpoints, batches, level decoding, refinement, predictions, overlays."""
