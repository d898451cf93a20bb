"""The positions of all sequences, kept on disk. Knows nothing of HTTP or of Fibonacci."""
