"""The code of docs/data.md runs as it stands, from top to bottom, in an empty folder; its tables are true."""

import re

import pages
import pytest

from sdg.readers import LAYOUTS, convert
from sdg.readers.sdg30k import GROUPS

PAGE, BLOCKS = pages.read("data.md")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What every block printed."""
    return pages.run(BLOCKS, tmp_path_factory.mktemp("data"))


def test_the_page_has_nothing_but_code_that_runs():
    assert {language for language, _ in BLOCKS} == {"python", "bash"}


def test_every_layout_is_in_the_table():
    table = PAGE.split("| `layout=` |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.M)) == set(LAYOUTS)


def test_every_problem_is_in_the_table():
    table = PAGE.split("| problem |")[1].split("\n\n")[0]
    named = {name.strip() for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")}
    assert named == {v for k, v in vars(convert).items() if k.isupper() and isinstance(v, str) and k[0] != "_"}


def test_the_orders_of_the_table_are_those_of_the_reader():
    table = PAGE.split("| fields of SDG-30K |")[1].split("\n\n")[0]
    told = {
        tuple(re.findall(r"`(\w+_bboxes)`", row)): row.split("|")[2].split(":")[0] for row in table.splitlines()[2:]
    }
    true = {tuple(key for key, _ in keys): f" {order or 'not declared'}" for keys, order in GROUPS.values()}
    assert {keys: said.rstrip() for keys, said in told.items()} == true


@pytest.mark.slow
def test_what_the_page_promises(printed):
    record, order, mended, validated, coco, written, shell = printed
    assert record == "a cup sana train (620, 100, 900, 480) (64, 32)\n"
    assert "agree only with x and y exchanged" in order
    assert order.endswith("(620, 100, 900, 480)\n")
    assert mended.startswith("[55]\n1 records with 1 defects; 2 left out, 1 mended\n")
    assert "importance as text" in validated
    assert "exit code 1" in validated
    assert coco == "(625, 125, 875, 500) texture_fault ('melted',)\n"
    assert written.startswith("40 records\n")
    assert written.endswith("True\n")
    assert "40 pictures" in shell
