"""Tests of the jobs of a grid, from overrides as Hydra parses them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vaelab.errors import UserError
from vaelab.sweeps import combinations

GRIDS = {  # overrides: the jobs
    "a=1": [["a=1"]],
    "a=1,2 b=x,y": [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]],
    "a=range(1,4)": [["a=1"], ["a=2"], ["a=3"]],
    "a=choice(1,x) +b=2": [["a=1", "+b=2"], ["a=x", "+b=2"]],
    "a=[1,2],[3] ~c": [["a=[1,2]", "~c=null"], ["a=[3]", "~c=null"]],
    "a=1,2 b=3 a=4": [["a=4", "b=3"]],
    "a='x y',null": [["a='x y'"], ["a=null"]],
    "g@h=m,n": [["g@h=m"], ["g@h=n"]],
}


@pytest.mark.parametrize("given", GRIDS)
def test_combinations_are_the_jobs_of_a_grid(given):
    words = ["a='x y',null"] if "x y" in given else given.split()
    assert combinations(OverridesParser.create().parse_overrides(words)) == GRIDS[given]


def test_combinations_refuse_an_interval():
    parsed = OverridesParser.create().parse_overrides(["a=interval(0,1)"])
    with pytest.raises(UserError, match=r"a=interval\(0,1\): an interval is for a search"):
        combinations(parsed)
