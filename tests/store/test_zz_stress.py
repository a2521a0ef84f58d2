import itertools, time
import pytest
from store_helpers import Child, World, run_child
from store.database import Database
from store.home import Home
@pytest.mark.parametrize("n", range(120))
def test_create(n, world, tmp_path):
    home = Home(tmp_path/"shared")
    def writer(k):
        def body(report):
            for i in range(6):
                with Database.open(home.database, home) as d: d.add(world.sealed(f"w{k}-{i}", seed=i))
        return body
    def reader(report):
        seen=0
        for i in range(40):
            with Database.open(home.database, home, readonly=True) as d:
                rows=d.list(); assert len(rows)>=seen; seen=len(rows)
                for r in rows[-2:]: d.load(r, world.keys)
                assert not [p for p in d.check(world.keys) if p.kind=="error"]
    cs=[Child.start(writer(k)) for k in range(3)]+[Child.start(reader) for _ in range(2)]
    assert [c.join()[0] for c in cs]==[0]*5
