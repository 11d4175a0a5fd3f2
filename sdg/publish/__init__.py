"""What goes to the Hub: Spaces assembled from this package, and what `sdg push` uploads."""

from sdg.publish.push import Push, What, prepare
from sdg.publish.space import Space, assemble_space, build_wheel

__all__ = ["Push", "Space", "What", "assemble_space", "build_wheel", "prepare"]
