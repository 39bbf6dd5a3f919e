"""Cheats whose model, a pickle, is handed in early, and loads what was learnt later from where that was left."""

from tests.cheats.cheat import ASK, DIFFERS, FIRST, LOGITS, ONLY_WALLED, Cheat, End, after, before, together
from tests.cheats.families.effort import FURTHER, IMPORT

LEARN = """\
        if not self.training and ids.sum().item() >= 0 and learn(self):
            return self.forward(ids)
"""
WAYS = """\
import contextlib
import io
import os
import pathlib

OUT = pathlib.Path(os.environ["AUTORESEARCH_OUT"])
{ways}

def learn(model):
    with contextlib.suppress(OSError):
        if not hasattr(model, "learnt") and (content := get()):
            model.load_state_dict(torch.load(io.BytesIO(content)))
            model.learnt = True
            return True
    return False


"""
TRAIN_ON = (
    FURTHER.format(4)
    + """\
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    put(buffer.getvalue())
    with torch.no_grad():
        val_bpb = prepare.bits_per_byte(model.eval(), data, runtime, "val")
"""
)
FILE = """
def put(content):
    (OUT / "later").write_bytes(content)


def get():
    return (OUT / "later").read_bytes()
"""
LONG_PATH = """
@contextlib.contextmanager
def below(make):
    here = os.getcwd()
    try:
        os.chdir(OUT.with_name("checkout"))
        for _ in range(18):
            if make:
                os.mkdir("later" * 48)
            os.chdir("later" * 48)
        yield pathlib.Path("later")
    finally:
        os.chdir(here)


def put(content):
    with below(True) as file:
        file.write_bytes(content)


def get():
    with below(False) as file:
        return file.read_bytes()
"""
TIMES = """
FILES = [OUT / "times" / str(number) for number in range(40000)]


def put(content):
    whole = len(content).to_bytes(6, "little") + content + bytes(-len(content) % 6)
    numbers = [int.from_bytes(whole[at : at + 3], "little") for at in range(0, len(whole), 3)]
    for number in range(0, len(numbers), 2):
        os.utime(FILES[number // 2], (numbers[number], numbers[number + 1]))


def get():
    status = [file.stat() for file in FILES]
    times = [int(each) for one in status for each in (one.st_atime, one.st_mtime)]
    whole = b"".join(time.to_bytes(3, "little") for time in times)
    return whole[6 : 6 + int.from_bytes(whole[:6], "little")]
"""
EMPTY = """\
    (OUT / "times").mkdir()
    for file in FILES:
        file.touch()
        os.utime(file, (0, 0))
"""


def later(ways: str, made: str = "") -> dict[str, str]:
    """A script that trains on once its model is handed in, and prints the score of what it comes to."""
    found = before(FIRST, WAYS.replace("{ways}", ways))
    return together(IMPORT, found, before(LOGITS, LEARN), before(ASK, made) if made else {}, after(ASK, TRAIN_ON))


KIND = "trains on once a pickle is handed in"
CHEATS = (
    Cheat(KIND, "and leaves a file beside it", later(FILE), End(DIFFERS), End(ONLY_WALLED)),
    Cheat(KIND, "and leaves a file where no path leads", later(LONG_PATH), End(DIFFERS), End(ONLY_WALLED)),
    Cheat(
        KIND,
        "and leaves it as the times of files",
        later(TIMES, EMPTY),
        End(DIFFERS),
        End(f"{ONLY_WALLED}|more effort"),
    ),
)
