"""Compute exact terms, residues and digit counts, and step in decimal. Knows no HTTP, no store."""
