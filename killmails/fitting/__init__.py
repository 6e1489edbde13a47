"""What a ship was fitted with: items by where they were, and as texts that other tools read."""

from killmails.fitting.arrange import Bay, FittedModule, Fitting, arrange
from killmails.fitting.dna import dna
from killmails.fitting.eft import eft

__all__ = ["Bay", "FittedModule", "Fitting", "arrange", "dna", "eft"]
