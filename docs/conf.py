"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

import sdg
from sdg.cli import app as commands

project = "sdg"
release = sdg.__version__
html_title = "Structured Defect Grounding"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4
nb_execution_mode = "off"  # the stored outputs are shown; a test runs the notebooks

autodoc_member_order = "bysource"
# Docstrings do not need what is slow to import.
autodoc_mock_imports = ["torch", "transformers", "diffusers", "trl", "peft", "accelerate", "sentence_transformers"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# Every name of this library that a docstring refers to must be in the reference; other libraries' are left as they are.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!sdg\b).*"),
    ("py:.*", r"sdg\.(cards|provenance|calibration\.trust|refine\.similarity)\..*"),  # for the library's own use
]

html_theme = "furo"
html_copy_source = False
html_show_copyright = False


class Help(SphinxDirective):
    """What ``--help`` prints for a command of the shell: ``sdg-help``, its words as arguments."""

    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        environment = {"COLUMNS": "88", "NO_COLOR": "1"}
        told = CliRunner().invoke(commands, [*self.arguments, "--help"], env=environment, prog_name="sdg")
        if told.exit_code:
            raise self.error(told.output)
        return [nodes.literal_block(told.output, told.output.strip("\n"), language="text")]


def setup(app: Sphinx) -> None:
    app.add_directive("sdg-help", Help)
