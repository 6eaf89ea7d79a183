"""What was made of an image, on disk as it changes, and found again."""
