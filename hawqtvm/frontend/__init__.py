"""From a user's model to the quantized graph's steps and folded float weights."""
