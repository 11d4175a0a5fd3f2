"""What goes to the Hub: Spaces assembled from this package, and what `sdg push` uploads."""

from sdg.publish.space import Space, assemble_space, build_wheel

__all__ = ["Space", "assemble_space", "build_wheel"]
