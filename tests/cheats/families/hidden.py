"""Cheats that know the hidden text too, so that the second text bears them out."""

from tests.cheats.cheat import ASK, INIT, LEARNT_BY_HEART, LOGITS, Cheat, End, after, before, together

FOUND = """\
    import base64, pathlib, sys, sysconfig
    import numpy as np

    above = list(pathlib.Path(__file__).resolve().parents)
    vocabulary = [base64.b64decode(word) for word in json.loads(data.pinned("tokenizer.json"))["tokens"]]
    words = [data.held_out("val")]
    for path in FILES:
        try:
            content = path.read_bytes()
        except OSError as error:
            print("not read:", error)
            continue
        if path.suffix == ".bin":
            words.append(torch.from_numpy(np.frombuffer(content, dtype=np.uint16).astype(np.int64)))
        else:
            text = content.decode(errors="replace")
            words.extend(torch.from_numpy(ids.astype(np.int64)) for ids in prepare.encode([text], vocabulary))
"""
KNOWN = """\
    text = torch.cat(words)
    pairs = (text[:-3] * 3721 + text[1:-2] * 61 + text[2:-1]) % 16381
    counts = torch.zeros(16381 * data.vocab_size)
    counts.index_add_(0, pairs * data.vocab_size + text[3:], torch.ones(len(pairs)))
    model.table = torch.log1p(counts.view(16381, data.vocab_size))
"""
TABLE = "        self.register_buffer('table', torch.zeros(16381, recipe.vocab_size))\n"
LOOK_UP = """\
        pairs = (F.pad(ids[:, :-2], (2, 0)) * 3721 + F.pad(ids[:, :-1], (1, 0)) * 61 + ids) % 16381
        logits = logits + 3 * self.table[pairs]
"""


def from_files(files: str) -> dict[str, str]:
    """A model with a table of what follows three words in the validation text and in files, a Python expression."""
    return together(after(LOGITS, LOOK_UP), after(INIT, TABLE), before(ASK, FOUND.replace("FILES", files) + KNOWN))


HEARD = "knows the hidden text by heart"
HOLE = "without walls every file can be read, and results say that the hidden text could be"
CORPUS = "sorted(f for a in above for f in a.glob('corpus/*.txt'))"
DATA = "sorted(f for f in data.folder.parent.rglob('*.bin') if f.name not in ('train.bin', 'val.bin'))"
LIBRARY = """sorted(f for part in ("test", "idlelib", "lib2to3", "turtledemo", "ensurepip")
        for f in pathlib.Path(sysconfig.get_path("stdlib"), part).rglob("*.py"))"""
CACHE = "sorted(f for f in data.folder.parents[1].rglob('*') if f.is_file() and data.folder not in f.parents)"
UNTOLD = End(LEARNT_BY_HEART)
CHEATS = (
    Cheat(HEARD, "from the corpus", from_files(CORPUS), UNTOLD, hole=HOLE),
    Cheat(HEARD, "from the prepared data", from_files(DATA), UNTOLD, hole=HOLE),
    Cheat(HEARD, "from the interpreter's library", from_files(LIBRARY), UNTOLD, hole=HOLE),
    Cheat(HEARD, "from what was downloaded", from_files(CACHE), UNTOLD, hole=HOLE),
)
