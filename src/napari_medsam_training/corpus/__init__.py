"""Folders of raw images and masks to a dataset of cases, and its embeddings to a store: at any size, shard by shard."""
