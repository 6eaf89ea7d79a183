"""The recipe of the decoder that knows clicks."""
