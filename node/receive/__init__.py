"""Stage 1: instances arrive; success is answered only when they are durable."""
