"""Threads: the same bits for any number of them, and no hang in any company."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import _core
from rnncore.layers.linear import Linear
from rnncore.threads import get_num_threads, set_num_threads

from tests.support import cases
from tests.support.cases import CELLS, LINEAR_CELLS, TOLERANCE, VARIED, Case, each
from tests.support.compare import assert_same
from tests.support.processes import run_python

pytestmark = pytest.mark.usefixtures("set_threads")

#: What is cut in different ways: one sequence by hidden units, a batch by its rows, directions.
SHARED = [
    Case(cell, dtype, 1, bidirectional, ragged, steps, batch, input_size, hidden_size)
    for cell in CELLS
    for dtype in TOLERANCE
    for bidirectional, ragged, steps, batch, input_size, hidden_size in [
        (False, False, 9, 1, 70, 333),
        (True, False, 9, 2, 70, 333),
        (False, False, 9, 37, 33, 130),
        (True, True, 9, 37, 33, 130),
        (False, True, 5, 100, 17, 33),
        (False, False, 9, 15, 600, 130),
    ]
]
SHARED += [
    Case(cell, "float64", 1, both, both, 9, batch, 33, 130)
    for cell in VARIED
    for both, batch in [(False, 1), (True, 37)]
]

#: A model that shares one call between threads, in code for another process.
MODEL = """
import os, sys, signal, threading, time
import numpy as np, rnncore
from rnncore.threads import get_num_threads, set_num_threads

set_num_threads(3)
layer = rnncore.LSTM(64, 256, bidirectional=True, seed=0)
x = np.random.default_rng(0).standard_normal((8, 40, 64), np.float32)

def call():
    return layer(x)[0].tobytes()

def train():
    layer.zero_grad()
    (y, _), pullback = layer.vjp(x)
    pullback(y)
    return b"".join(grad.tobytes() for grad in layer.grads.values())

def threads():
    return len(os.listdir("/proc/self/task"))

def in_child(work):
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child

def finish(child):
    assert os.waitpid(child, 0)[1] == 0
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(code: str) -> None:
    """Run code after `MODEL`, in a process whose threads are all ours."""
    run_python(MODEL + code, OPENBLAS_NUM_THREADS="1")


class TestToTheBit:
    @each(SHARED)
    def test_any_number_of_threads_computes_the_same(self, case: Case) -> None:
        numbers = case.draw()
        set_num_threads(1)
        alone = *cases.layer_results(case, numbers), cases.layer_outputs(case, numbers)
        for threads in (2, 3, 5):
            set_num_threads(threads)
            together = *cases.layer_results(case, numbers), cases.layer_outputs(case, numbers)
            for got, want in zip(together, alone, strict=True):
                assert_same(got, want)

    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_linear_computes_the_same(self, dtype: str, rng: np.random.Generator) -> None:
        x, dy = (rng.standard_normal((500, n)).astype(dtype) for n in (77, 133))

        def results() -> dict[str, Any]:
            linear = Linear(77, 133, dtype=dtype, seed=0)
            y, pullback = linear.vjp(x)
            return {"y": y, "x": pullback(dy), "again": linear(x)} | linear.grads

        set_num_threads(1)
        alone = results()
        for threads in (2, 3, 5):
            set_num_threads(threads)
            assert_same(results(), alone)

    @linux
    @pytest.mark.parametrize("batch", [1, 40])
    def test_threads_do_take_part(self, batch: int) -> None:
        run(f"""
before = threads()
layer = rnncore.LSTM(64, 256, seed=0)
layer(x[:, :{batch}])
assert threads() == before + 2, (before, threads())
""")

    @linux
    def test_threads_that_wait_sleep_after_the_spin_time(self) -> None:
        """Processor time, not time on the clock: a call, and what is used while nothing is done."""
        code = """
def waiting(seconds):
    rnncore.set_spin_time(seconds)
    call()
    time.sleep(0.05)
    before = os.times()
    time.sleep(0.4)
    after = os.times()
    stats = [open(f"/proc/self/task/{n}/stat").read() for n in os.listdir("/proc/self/task")]
    running = sum(stat.rpartition(")")[2].split()[0] == "R" for stat in stats)
    return running, after.user + after.system - before.user - before.system

assert rnncore.get_spin_time() == 0.002
for seconds in (0, 0.002, 60, 0):
    running, used = waiting(seconds)
    # The two of the pool sleep; or they would run, where other processes let them.
    assert running == (1 if seconds < 60 else 3), (seconds, running)
    assert used <= 0.03 or seconds == 60, (seconds, used)
"""
        run_python(MODEL + code, OPENBLAS_NUM_THREADS="1", RNNCORE_SPIN_TIME="0.002")

    def test_spin_times_that_make_no_sense(self) -> None:
        for seconds in (-1, 86401, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"seconds must be in 0\.\.86400, got"):
                rnncore.set_spin_time(seconds)
        with pytest.raises(TypeError, match="seconds must be a number, got 'x'"):
            rnncore.set_spin_time("x")  # type: ignore[arg-type]
        for text in ("-1", "1s", "nan"):
            code = (
                "try:\n    from rnncore import _core\nexcept Exception as error:\n    print(error)"
            )
            said = run_python(code, RNNCORE_SPIN_TIME=text)
            assert f"RNNCORE_SPIN_TIME={text} is not a number of seconds" in said


class TestCallsAtOnce:
    @each([case for case in SHARED if case.batch == 37 and case.dtype == "float32"])
    def test_python_threads_may_share_a_layer(self, case: Case) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        set_num_threads(1)
        want = layer(numbers.x, numbers.state, lengths=numbers.lengths)[0]
        set_num_threads(3)
        with ThreadPoolExecutor(4) as pool:
            calls = [
                pool.submit(layer, numbers.x, numbers.state, lengths=numbers.lengths)
                for _ in range(24)
            ]
        for call in calls:
            assert_same({"y": call.result()[0]}, {"y": want})

    @each([Case(c, "float64", 1, False, False, 1, 1, 64, 512) for c in LINEAR_CELLS])
    def test_gradients_of_calls_at_once_add_up(self, case: Case) -> None:
        """Whole numbers: their sums are the same in any order."""
        set_num_threads(3)
        numbers = case.draw_integers()
        _, once = cases.layer_results(case, numbers)
        layer = cases.built(case, numbers)

        def train(_: int) -> None:
            _, pullback = layer.vjp(numbers.x, numbers.state)
            pullback(numbers.dy, numbers.dstate)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(train, range(24)))
        assert_same(dict(layer.grads), {name: 24 * once[name] for name in layer.grads})

    def test_linear_gradients_of_calls_at_once_add_up(self, rng: np.random.Generator) -> None:
        set_num_threads(3)
        x, dy = (rng.integers(-2, 3, (4, n)).astype(np.float32) for n in (512, 700))
        linear = Linear(512, 700, seed=0)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: linear.vjp(x)[1](dy), range(24)))
        assert_same({"weight": linear.grads["weight"]}, {"weight": 24 * (dy.T @ x)})

    def test_a_call_within_a_call(self, rng: np.random.Generator) -> None:
        set_num_threads(3)
        layer = rnncore.LSTM(64, 64, bidirectional=False, seed=0)
        x = rng.standard_normal((20, 40, 64)).astype(np.float32)

        class Outputs:
            """Becomes an array by calling the layer."""

            dtype = x.dtype

            def __array__(self, *_: Any, **__: Any) -> Any:
                return layer(x)[0]

        assert_same({"y": layer(Outputs())[0]}, {"y": layer(layer(x)[0])[0]})


@needs_fork
class TestFork:
    """The child has one thread and must not wait for any other."""

    def test_after_a_call_parent_and_child_go_on(self) -> None:
        run("""
y, gradients = call(), train()

def work():
    assert call() == y and train() == gradients

for _ in range(3):
    child = in_child(work)
    work()
    finish(child)
""")

    def test_a_child_may_fork(self) -> None:
        run("""
y = call()

def grandchild():
    assert call() == y

def work():
    assert call() == y
    finish(in_child(grandchild))

finish(in_child(work))
""")

    def test_while_other_threads_are_in_the_middle_of_calls(self) -> None:
        """Python 3.12 warns of such a fork; a child of ours must still not hang."""
        run("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

layer = rnncore.LSTM(512, 512, seed=0)
x = np.zeros((2, 1, 512), np.float32)
y, stop = call(), threading.Event()

def work():
    assert call() == y

def keep_calling():
    while not stop.is_set():
        call()

callers = [threading.Thread(target=keep_calling) for _ in range(3)]
for caller in callers:
    caller.start()
for _ in range(100):
    finish(in_child(work))
stop.set()
for caller in callers:
    caller.join()
""")

    @linux
    def test_the_pool_is_gone_while_a_process_forks(self) -> None:
        """So that Python 3.12 has nothing to warn of, and the child nothing to miss."""
        run("""
before = threads()
call()
assert threads() == before + 2

def work():
    assert threads() == 1

finish(in_child(work))
assert threads() == before
call()
assert threads() == before + 2
""")

    def test_multiprocessing(self, tmp_path: Any) -> None:
        (tmp_path / "pool.py").write_text(
            MODEL
            + """
import multiprocessing

def again(_):
    return call()

if __name__ == "__main__":
    y = call()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(again, range(8)) == [y] * 8
"""
        )
        run_python("-W", "ignore::DeprecationWarning", str(tmp_path / "pool.py"))


class TestTheSystem:
    @linux
    def test_without_more_threads_a_call_makes_do(self) -> None:
        run("""
import resource

set_num_threads(1)
layer, x = rnncore.LSTM(64, 256, seed=0), x[:, :1]
y = call()
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + 2**21, hard))
set_num_threads(3)
assert call() == y
assert threads() == 1
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert call() == y
assert threads() == 3
""")

    @needs_fork
    def test_an_interpreter_may_end_while_threads_are_in_calls(self) -> None:
        code = """
        import threading
        import time
        import numpy as np
        import rnncore
        layer, x = rnncore.LSTM(64, 128, seed=0), np.zeros((8, 20, 64), np.float32)
        stream = rnncore.GRU(64, 128, seed=0).stream(20)
        def loop(call):
            while True:
                call(x)
        for call in (layer, layer, stream.run):
            threading.Thread(target=loop, args=(call,), daemon=True).start()
        time.sleep(0.1)
        """
        for _ in range(8):
            run_python(code)

    @needs_fork  # where there is none, there are no signals for a thread
    def test_signals_are_not_for_the_pool(self) -> None:
        run("""
call()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1
""")


class TestHowMany:
    def test_is_what_was_set(self) -> None:
        for n in (1, 7, np.int64(2)):
            set_num_threads(n)
            assert get_num_threads() == n

    @pytest.mark.parametrize("n", [0, -1])
    def test_below_one_is_refused(self, n: int) -> None:
        with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
            set_num_threads(n)

    @pytest.mark.parametrize("n", [1.5, "2", None])
    def test_only_whole_numbers(self, n: Any) -> None:
        with pytest.raises(TypeError):
            set_num_threads(n)

    @pytest.mark.parametrize(
        ("environment", "n"),
        [
            ({"RNNCORE_NUM_THREADS": "7"}, 7),
            ({"OMP_NUM_THREADS": "5"}, 5),
            ({"OMP_NUM_THREADS": "5,2"}, 5),
            ({"RNNCORE_NUM_THREADS": "7", "OMP_NUM_THREADS": "5"}, 7),
            ({"RNNCORE_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ],
    )
    def test_comes_from_the_environment(self, environment: dict[str, str], n: int) -> None:
        code = """
        from rnncore.threads import get_num_threads
        print(get_num_threads())
        """
        assert int(run_python(code, **environment)) == n

    @pytest.mark.parametrize("given", ["0", "-1", "1.5", "many"])
    def test_nonsense_in_the_environment_fails_at_import(self, given: str) -> None:
        code = """
        try:
            import rnncore
        except ImportError as error:
            print(error)
        """
        complaint = run_python(code, RNNCORE_NUM_THREADS=given)
        assert complaint == f"RNNCORE_NUM_THREADS={given} is not a whole number above 0\n"

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
    def test_else_it_is_the_processors_this_process_may_use(self) -> None:
        code = """
        import os
        from rnncore.threads import get_num_threads
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:{n}])
        print(get_num_threads())
        """
        available = _core.processors("")  # a container's quota may be smaller than its affinity
        for n in (1, available):
            assert int(run_python(code.format(n=n))) == n

    def test_threadpoolctl_limits_it(self) -> None:
        threadpoolctl = pytest.importorskip("threadpoolctl")
        set_num_threads(5)
        infos = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "rnncore"]
        assert [info["num_threads"] for info in infos] == [5]
        for limits in (1, {"rnncore": 1}):
            with threadpoolctl.threadpool_limits(limits):
                assert get_num_threads() == 1
            assert get_num_threads() == 5
