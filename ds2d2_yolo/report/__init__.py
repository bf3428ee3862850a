"""Tables and pictures of finished runs. Knows nothing of training."""
