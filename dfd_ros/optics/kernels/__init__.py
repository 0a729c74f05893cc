"""Back ends of the PSF layer. Each module has the same two functions, `forward` and `backward`: see `reference.py`."""
