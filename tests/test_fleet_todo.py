"""Which task a device gets next."""

import msgspec
from fleets import ABOUT

from edgecap.spec import Spec
from edgecap.sweep.fleet.connection import DeviceStatus
from edgecap.sweep.fleet.requirements import Task, requirements_of, shortfalls
from edgecap.sweep.fleet.task_queue import TaskQueue
from edgecap.sweep.plan import PlannedCell


def cell(name, device="", provider="cpu", **options):
    spec = Spec(model="edgecap-ref-xs", precisions=("int8",), providers=(provider,), **options)
    return PlannedCell(name, spec, device)


def seen(name, alive=True, **changes):
    return DeviceStatus(
        f"tcp://{name}", msgspec.structs.replace(ABOUT, name=name, **changes), alive
    )


ONE, TWO, GPU = seen("one"), seen("two"), seen("gpu", providers=("cpu", "cuda"))


def drained(todo, device, devices=(ONE, TWO, GPU)):
    found = []
    while (task := todo.pop(device, devices)) is not None:
        found.append(task.cell.measured)
    return found


def test_tasks_come_in_the_order_of_the_plan_whatever_they_need():
    cells = [
        cell("a"),
        cell("b", "one"),
        cell("c", provider="cuda"),
        cell("d"),
        cell("e", "two"),
        cell("f", "one"),
    ]
    assert drained(TaskQueue(map(Task, cells)), ONE) == ["a", "b", "d", "f"]
    assert drained(TaskQueue(map(Task, cells)), GPU) == ["a", "c", "d"]
    todo = TaskQueue(map(Task, cells))
    todo.push_front(Task(cells[5]))
    assert drained(todo, ONE) == ["f", "a", "b", "d", "f"] and len(todo) == 2
    assert [task.cell.measured for task in todo] == ["c", "e"] and len(todo.requirements) == 2


def test_a_task_that_went_wrong_somewhere_goes_elsewhere_while_there_is_one():
    todo = TaskQueue([Task(cell("a")), Task(cell("b"))])
    todo.add_failure(Task(cell("a")), "one", "it left")
    assert drained(todo, ONE) == ["b"] and drained(todo, ONE, [ONE]) == ["a"]
    todo.push_front(Task(cell("a")))
    assert drained(todo, ONE, [ONE, seen("two", alive=False)]) == ["a"]
    assert todo.failures(Task(cell("a"))) == [("one", "it left")]
    pinned = TaskQueue([Task(cell("p", "one"))])
    pinned.add_failure(Task(cell("p", "one")), "one", "it left")
    assert drained(pinned, ONE) == ["p"]


def test_parts_of_a_cell_go_with_it():
    whole, other = cell("a"), cell("b")
    todo = TaskQueue([Task(whole, 0), Task(other), Task(whole, 1)])
    todo.remove(whole)
    assert drained(todo, ONE) == ["b"]


def test_what_a_device_lacks_is_told():
    def lacks(asked, *devices):
        return shortfalls(requirements_of(Task(asked)), devices)

    assert lacks(cell("a", "away"), ONE, TWO) == "away is not connected; connected: one, two"
    assert lacks(cell("a", "away")) == "away is not connected; connected: none"
    assert lacks(cell("a"), seen("one", alive=False)) == "one does not answer"
    assert lacks(cell("a", provider="cuda"), ONE, TWO) == "one has no cuda, two has no cuda"
    assert lacks(cell("a", energy="require"), ONE) == "one has no energy counter"
    assert lacks(cell("a"), seen("one", edgecap="0")) == "one runs edgecap 0"
    assert lacks(cell("a"), seen("one", memory_bytes=1000)) == "one has too little memory"
    assert lacks(cell("a")) == "no device is connected"
    assert lacks(cell("a", "one", provider="cuda"), ONE, TWO) == "one has no cuda"
    assert requirements_of(Task(cell("a", "one"), 0)).device == ""  # a part may be scored anywhere
