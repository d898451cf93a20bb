"""The fence around bjoern: all that reaches into its memory, libev's and its connections."""
