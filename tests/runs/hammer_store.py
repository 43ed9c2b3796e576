"""Write to one store as fast as possible; started several times at once by test_store.py."""

import sys

from gpt2lab.runs.store import Row, Store

home, worker, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store(home)
for i in range(times):
    row, lease = store.add(Row(id="", name="hammer", kind="train"))
    store.set_results(row.id, {"worker": float(worker), "i": float(i)})
    store.update(row.id, status="finished")
    assert store.find(row.id).numbers["i"] == i
    lease.release()
