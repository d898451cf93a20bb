"""The mathematics: exact terms, residues, digit counts, packed decimals. Pure functions."""
