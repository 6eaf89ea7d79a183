"""Where and how networks run: encoder backends, devices, threads, memory."""
