"""The page, one module a tab."""

from sdg.web.examples import Example, microworld_examples, repair_examples
from sdg.web.models import Models
from sdg.web.page import build_page, launch_options

__all__ = ["Example", "Models", "build_page", "launch_options", "microworld_examples", "repair_examples"]
