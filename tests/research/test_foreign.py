"""Tables that other tools and people keep, read as leniently as is safe."""

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.research.foreign import read_table

HEAD = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def test_the_table_of_the_original_loop_is_read() -> None:
    table = read_table(
        HEAD
        + "a1b2c3d\t0.997900\t44.0\tkeep\tbaseline\n"
        + "b2c3d4e\t0.993200\t44.2\tkeep\tincrease LR to 0.04\n"
        + "c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU activation\n"
        + "d4e5f6a\t0.000000\t0.0\tcrash\tdouble model width (OOM)\n"
    )
    assert (table.metric, table.skipped) == ("val_bpb", [])
    assert [(row.status, row.value, row.category) for row in table.rows] == [
        ("keep", 0.9979, "other"),
        ("keep", 0.9932, "optimizer"),
        ("discard", 1.005, "activation"),
        ("crash", None, "architecture"),
    ]
    assert table.rows[0].memory_gb == 44.0
    assert table.kept == table.rows[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a1b2c3d\tn/a\t44.0\tkeep\tx", "no number"),
        ("a1b2c3d\tnan\t44.0\tdiscard\tx", "no number"),
        ("a1b2c3d\t0.99\t44.0\tmaybe\tx", "'maybe', and not keep, discard or crash"),
        ("a1b2c3d\t0.99\tkeep\tx", "it has 4 columns and the header 5"),
    ],
)
def test_a_line_that_cannot_be_read_is_left_out_and_named(line: str, said: str) -> None:
    table = read_table(f"{HEAD}{line}\nb2c3d4e\t0.98\t1\tkeep\tfine\n")
    assert [row.commit for row in table.rows] == ["b2c3d4e"]
    [skipped] = table.skipped
    assert skipped.startswith("line 2 is left out: ")
    assert said in skipped


def test_other_spellings_are_understood() -> None:
    table = read_table(
        "\ufeffCommit,Accuracy,loss,Status,Description,Category\r\n"
        'HEAD~1,0.91,0.3,Baseline,"start, as it was",\r\n'
        "\r\n"
        "abcdef0,0.92,0.2,kept,dropout 0.1,regularization\r\n"
        "abcdef1,0.90,0.4,reverted,no words,nonsense\r\n",
        metric="accuracy",
    )
    assert table.metric == "Accuracy"
    assert [(row.commit, row.value, row.status) for row in table.rows] == [
        ("", 0.91, "keep"),  # a name of a commit that moves is none
        ("abcdef0", 0.92, "keep"),
        ("abcdef1", 0.90, "discard"),
    ]
    assert [row.category for row in table.rows] == ["other", "regularization", "other"]


@pytest.mark.parametrize(
    ("header", "metric"),
    [
        ("step,val_loss,status,description", "val_loss"),
        ("experiment_id,started_at,accuracy,status,description", "accuracy"),
        ("epoch,index,status,description", "epoch"),  # there is no better one
        ("commit,lr,depth,val_loss,status,description", "val_loss"),
        ("name,params,train_loss,Val Loss,status,description", "Val_Loss"),
        ("experiment,metric,value,status,description", "bleu"),
    ],
)
def test_a_count_or_a_time_is_no_metric_if_there_is_another(header: str, metric: str) -> None:
    known = {"status": "keep", "description": "as it was", "metric": "bleu", "Val Loss": "91.2%"}
    line = ",".join(known.get(name, "1") for name in header.split(","))
    assert read_table(f"{header}\n{line}\n").metric == metric


def test_tabs_in_a_description_belong_to_it() -> None:
    [row] = read_table(HEAD + "a1b2c3d\t0.99\t44\tkeep\tone\ttwo\n").rows
    assert row.description == "one two"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column 'status'"),
        ("commit\tval_bpb\n", "has no column 'status'"),
        ("commit\tstatus\tdescription\n", "has no column for the metric"),
        (HEAD, "has no experiment that can be read"),
        (HEAD + "a\tb\tc\td\te\n", "has no experiment that can be read: line 2 is left out"),
        ("x" * 5000, "has no column 'status'"),
        (HEAD + "a1b2c3d\t1\t1\tkeep\tx\n" * 10_001, "has 10002 lines"),
    ],
)
def test_what_is_no_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_table(text)


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match=r"no column 'loss'. Its columns for a metric are val_bpb"):
        read_table(HEAD, "loss")
