"""What suits a device, and how a training finds it."""

import pytest

from mcp_server.research.platform import Facts, adjust, variables

KINDS = [
    (Facts("cuda", 81_559, (9, 0)), "on flash bf16 fp32", ""),
    (Facts("cuda", 24_000, (8, 6), wsl2=True), "on flash bf16 fp32", "this is WSL2: keep the repository"),
    (Facts("cuda", 8_192, (8, 9)), "on flash bf16 bf16", "only 8192 MB"),
    (Facts("cuda", 15_360, (7, 5)), "on sdpa fp16 fp32", "precision is fp16"),
    (Facts("cuda", 8_192, (6, 1)), "on sdpa fp32 fp32", "precision is fp32"),
    (Facts("cuda"), "on sdpa bf16 fp32", "no flash kernels"),  # a driver that tells nothing
    (
        Facts("mps", 16_000, system="Darwin"),
        "off sdpa fp32 fp32",
        "torch.compile is off, since it is not ready for MPS",
    ),
    (Facts("cpu", 64_000), "off sdpa fp32 fp32", "torch.compile is off, since it takes a CPU most of a minute"),
    (Facts("cpu", 64_000, cpu_bf16=True), "off sdpa bf16 fp32", "attention is torch's own"),
]


@pytest.mark.parametrize(("facts", "shown", "why"), KINDS)
def test_each_kind_of_device_gets_what_suits_it(facts: Facts, shown: str, why: str) -> None:
    adjusted = adjust(facts)
    assert " ".join(adjusted.shown().values()) == shown
    assert why in "; ".join(adjusted.why)
    assert bool(adjusted.why) == bool(why)


def test_a_training_finds_it_in_variables() -> None:
    assert variables(Facts("mps")) == {
        "AUTORESEARCH_COMPILE": "off",
        "AUTORESEARCH_ATTENTION": "sdpa",
        "AUTORESEARCH_PRECISION": "fp32",
        "AUTORESEARCH_OPTIMIZER_STATE": "fp32",
        "TORCHDYNAMO_DISABLE": "1",
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    }
    assert "TORCHDYNAMO_DISABLE" not in variables(Facts("cuda", capability=(9, 0)))
