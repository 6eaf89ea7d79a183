"""Cases and cached embeddings to a decoder, and whether it has earned its place."""
