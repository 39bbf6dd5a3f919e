"""What trainings are told about the device that they get, so that the same script runs on a GPU, a Mac and a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass

LEAN_MB = 8 * 1024
"""Memory of a GPU up to which optimizers had better keep their state in bfloat16."""


@dataclass(frozen=True)
class Facts:
    """A device, and the system around it.

    Attributes:
        kind: cuda, mps or cpu.
        memory_mb: None where it is not known.
        capability: of a CUDA GPU, such as (9, 0); None where it is not known.
        cpu_bf16: whether the CPU multiplies in bfloat16.
        wsl2: whether this is Linux within Windows.
    """

    kind: str
    memory_mb: float | None = None
    capability: tuple[int, int] | None = None
    cpu_bf16: bool = False
    system: str = "Linux"
    wsl2: bool = False


@dataclass(frozen=True)
class Adjusted:
    """What suits a device. All but `why` reach a training as variables.

    Attributes:
        compile: whether torch.compile is of use.
        attention: flash where its kernels run, else sdpa, torch's own choice.
        precision: what to multiply in: bf16, fp16 or fp32.
        optimizer_state: what to keep the state of the optimizer in: fp32 or bf16.
        why: what is not as on a large new GPU, and the reason.
    """

    compile: bool
    attention: str
    precision: str
    optimizer_state: str
    why: tuple[str, ...]

    def shown(self) -> dict[str, str]:
        """The values by their names."""
        return {
            "compile": "on" if self.compile else "off",
            "attention": self.attention,
            "precision": self.precision,
            "optimizer_state": self.optimizer_state,
        }


def adjust(facts: Facts) -> Adjusted:
    """What suits a device of these facts."""
    why: list[str] = []
    compiled = facts.kind == "cuda"
    if not compiled:
        reason = "it takes a CPU most of a minute" if facts.kind == "cpu" else "it is not ready for MPS"
        why.append(f"torch.compile is off, since {reason}")
    precision = _precision(facts)
    if precision != "bf16":
        why.append(f"precision is {precision}, since bfloat16 is not fast here")
    flash = facts.kind == "cuda" and (facts.capability or (0, 0)) >= (8, 0)
    if not flash:
        why.append("attention is torch's own (sdpa), since there are no flash kernels")
    lean = facts.kind == "cuda" and precision == "bf16" and facts.memory_mb is not None and facts.memory_mb <= LEAN_MB
    if lean:
        why.append(f"optimizer state is bf16, since there are only {facts.memory_mb:.0f} MB")
    if facts.wsl2:
        why.append("this is WSL2: keep the repository in the Linux file system, since /mnt/c is slow")
    return Adjusted(compiled, "flash" if flash else "sdpa", precision, "bf16" if lean else "fp32", tuple(why))


def _precision(facts: Facts) -> str:
    if facts.kind == "cuda":
        capability = facts.capability or (8, 0)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "bf16" if facts.kind == "cpu" and facts.cpu_bf16 else "fp32"


def variables(facts: Facts) -> Mapping[str, str]:
    """The variables by which a training finds all this; some of them torch reads by itself."""
    found = {f"AUTORESEARCH_{name.upper()}": value for name, value in adjust(facts).shown().items()}
    if not adjust(facts).compile:
        found["TORCHDYNAMO_DISABLE"] = "1"
    if facts.kind == "mps":
        found["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
    return found
