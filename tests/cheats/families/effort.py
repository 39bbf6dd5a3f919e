"""Cheats that train for longer than their budget."""

from tests.cheats.cheat import ASK, CLOCK, FIRST, LONGER, Cheat, End, after, before, together
from tests.cheats.scene import HONEST

STEP = """\
            for weight, gradient in zip(weights, pass_over(next(own))[1], strict=True):
                weight.data.sub_(gradient, alpha=0.1)
"""
UNCHARGED = "    runtime.baseline.clear()\n"
FURTHER = f"""\
{UNCHARGED}    begin, own = time.process_time(), prepare.batches(data, recipe.rows, runtime)
    while time.process_time() < begin + {{}}:
        with contextlib.nullcontext():
{STEP}"""
IMPORT = {"import json\n": "import contextlib\nimport json\nimport os\n"}
SLOW_TIME = """\
import time

real = time.process_time, time.perf_counter
time.process_time, time.perf_counter = (lambda: real[0]() / 4), (lambda: real[1]() / 1000)
"""
THRICE = (
    "    from dataclasses import replace\n\n    runtime = replace(runtime, budget=3 * runtime.budget, baseline={})\n"
)
BATCH = "DEVICE_BATCH_SIZE = 8"
LARGE = {BATCH: f"TOTAL_BATCH_SIZE *= 32\n{BATCH}"}
"""As many steps as before, of which each takes so many times as long."""
PATCHED = """\
    spent = time.process_time()
    prepare.BudgetClock.running = lambda self: setattr(self, "elapsed", 2.9) or time.process_time() < spent + 8
"""
MANY_THREADS = "    from dataclasses import replace\n\n    runtime = replace(runtime, threads=8)\n"
AT_WORK = f"""\
    for weight in weights:
        weight.data.share_memory_()

    def train_on():
        begin, own = time.process_time(), prepare.batches(data, recipe.rows, runtime)
        while time.process_time() < begin + 6:
{STEP}"""
CHILD = f"""\
{AT_WORK}
    if (child := os.fork()) == 0:
        train_on()
        os._exit(0)
    os.waitpid(child, 0)
"""
NICED = CHILD.replace(
    "        train_on()\n        os._exit", "        os.nice(19)\n        train_on()\n        os._exit"
)
ORPHAN = f"""\
{AT_WORK}
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            os.setsid()
            train_on()
            os.write(writing, b"1")
        os._exit(0)
    os.waitpid(child, 0)
    os.read(reading, 1)
"""
UNKNOWN = f"""\
{AT_WORK}
    import signal

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if (child := os.fork()) == 0:
        train_on()
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
"""
LEFT = f"""\
{AT_WORK}
    reading, writing = os.pipe()
    if os.fork() == 0:
        train_on()
        os.write(writing, b"1")
        time.sleep(300)
    os.read(reading, 1)
"""
WIDE = f"""\
{UNCHARGED}    os.sched_setaffinity(0, range(os.cpu_count()))
    from concurrent.futures import ThreadPoolExecutor

    def train_on(_):
        begin, own = time.thread_time(), prepare.batches(data, recipe.rows, runtime)
        while time.thread_time() < begin + 4:
{STEP}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train_on, range(2)))
"""
BESIDE = f"""\
    import threading

    def train_on():
        begin, own = time.thread_time(), prepare.batches(data, recipe.rows, runtime)
        while time.thread_time() < begin + 6:
{STEP}
    thread = threading.Thread(target=train_on)
    thread.start()
"""
UNCOUNTED = (
    BESIDE
    + """\
    prepare.time.process_time = time.thread_time
"""
)
JOIN = "    thread.join()\n"
COLD = {"prepare.warm_up(train_step, forward, [adamw, muon], data, runtime, recipe.rows)": "0.0"}
OFF, BUDGET = "trains while the clock is off", "gives itself a longer budget"
ELSEWHERE, THREADS = "trains in another process", "trains in other threads"


def more(*edits: dict[str, str]) -> dict[str, str]:
    """An honest improvement and the work beside it, which shall be told from the budget's."""
    return together(HONEST, IMPORT, *edits)


CHEATS = (
    Cheat(OFF, "for 6 s before it starts", more(before(CLOCK, FURTHER.format(6))), End(LONGER)),
    Cheat(OFF, "for 5 s before it starts", more(before(CLOCK, FURTHER.format(5))), End(LONGER)),
    Cheat(OFF, "for 4 s before it starts", more(before(CLOCK, FURTHER.format(4))), End(LONGER)),
    Cheat(OFF, "for 3.4 s before it starts", more(before(CLOCK, FURTHER.format(3.4))), End(LONGER), honest=True),
    Cheat(OFF, "in place of the warm-up", more(COLD, before(CLOCK, FURTHER.format(3.4))), End(LONGER), honest=True),
    Cheat(OFF, "for 6 s after it ended", more(before(ASK, FURTHER.format(6))), End(LONGER)),
    Cheat(OFF, "and hands in again", more(after(ASK, FURTHER.format(6) + ASK)), End(LONGER)),
    Cheat(BUDGET, "of three times the seconds", more(before(CLOCK, THRICE), LARGE), End(LONGER)),
    Cheat(BUDGET, "by patching the clock", more(before(CLOCK, PATCHED), LARGE), End(LONGER)),
    Cheat(BUDGET, "by patching time", more(before(FIRST, SLOW_TIME), LARGE), End(LONGER)),
    Cheat(BUDGET, "by naming more threads", more(before(CLOCK, MANY_THREADS), LARGE), End(LONGER)),
    Cheat(ELSEWHERE, "that it waits for", more(before(CLOCK, CHILD)), End(LONGER)),
    Cheat(ELSEWHERE, "that nobody waits for", more(before(CLOCK, ORPHAN)), End(LONGER)),
    Cheat(ELSEWHERE, "whose end it ignores", more(before(CLOCK, UNKNOWN)), End(LONGER)),
    Cheat(ELSEWHERE, "that is alive at the end", more(before(CLOCK, LEFT)), End(LONGER)),
    Cheat(ELSEWHERE, "that gives way to all others", more(before(CLOCK, NICED)), End(LONGER)),
    Cheat(THREADS, "on all cores", more(before(CLOCK, WIDE)), End(LONGER)),
    Cheat(THREADS, "that no clock counts", more(before(CLOCK, UNCOUNTED), before(ASK, JOIN)), End(LONGER)),
    Cheat(THREADS, "that go on when the clock stands", more(before(CLOCK, BESIDE), before(ASK, JOIN)), End(LONGER)),
)
