"""One viewer at work, without Qt: what is embedded next, which prompt is answered from what."""
