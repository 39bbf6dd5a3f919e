"""What the multi-GPU tracker's routes take. Fields that it does not know are left alone, as it does itself."""

from typing import Annotated

from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST = 2**31 - 1


def _or(default: object) -> BeforeValidator:
    """null is as good as leaving a field out."""
    return BeforeValidator(lambda given: default if given is None else given)


def _no_truth(given: object) -> object:
    """Python takes true for 1."""
    if isinstance(given, bool):
        raise ValueError("should be a number")
    return given


Text = Annotated[str, _or("")]
Name = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]+$")
]
Number = Annotated[int | float, BeforeValidator(_no_truth)]
Amount = Annotated[int | float, _or(0), BeforeValidator(_no_truth)]
Chosen = Annotated[float, AllowInfNan(False)]


class Body(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True, coerce_numbers_to_str=True)


class Tag(Body):
    """A run."""

    tag: Name = Field(examples=["mar11"])


class Registration(Tag):
    """An experiment that is about to be trained."""

    commit_sha: Annotated[str, _or("HEAD")] = Field("HEAD", description="A commit, known here or not")
    parent_id: str | None = Field(None, description="The experiment that it was made from")
    description: Text = Field("", description="What was changed, in short")
    hypothesis: Text = Field("", description="Why it should help")
    category: Annotated[str, _or("other")] = Field("other", description="A category; one that is unknown becomes other")
    diff_summary: Text = Field("", description="What was changed, line by line")
    gpu_id: Annotated[str, _or("gpu-0")] = Field("gpu-0", description="The device, which stands for its agent too")


class Results(Body):
    """The numbers of a training."""

    experiment_id: Name
    val_bpb: Number
    peak_vram_mb: Amount = 0
    training_seconds: Amount = 0
    total_tokens_m: Amount = 0
    mfu_percent: Amount = 0
    num_steps: Amount = 0
    num_params_m: Amount = 0
    depth: Amount = 0


class Failure(Body):
    """A training that failed."""

    experiment_id: Name
    error: Text = Field("", description="What it said; of a very long text the end is kept")


class Question(Tag):
    """Which experiments to list: the last ones."""

    status: Text = Field("", description="running, keep, discard or crash; default: all")
    limit: int | None = Field(None, ge=0, le=LARGEST)


class NearMissQuestion(Tag):
    """How many near misses to list."""

    limit: Annotated[int, _or(20)] = Field(20, ge=0, le=LARGEST)


class Choice(Tag):
    """A strategy set by hand, until the next verdict."""

    mode: str = Field(description="explore, exploit, combine or ablation; auto lets the history decide")
    reason: Text = ""
    explore_ratio: Annotated[Chosen, _or(0.7)] = Field(0.7, ge=0, le=1)
    temperature: Annotated[Chosen, _or(1.0)] = Field(1.0, ge=0, le=1000)


class Hosted(Body):
    """A request that is about the caller's own machine."""

    host: Annotated[Name, _or("localhost")] = Field(
        "localhost", description="The machine of the device; default: the address that the request comes from"
    )


class Gpu(Hosted):
    """A registered device."""

    gpu_id: Name = Field(examples=["gpu-0"])


class GpuRegistration(Gpu):
    """A device with what it is."""

    gpu_index: Annotated[int, _or(0)] = Field(0, ge=0, le=LARGEST, description="Its number on its machine")
    gpu_name: Text = ""
    vram_mb: Annotated[float, _or(0), AllowInfNan(False)] = Field(0, ge=0)


class Acquisition(Hosted):
    """An experiment that wants a device."""

    experiment_id: Name


class Loan(Gpu):
    """A device that is given back."""

    experiment_id: str | None = Field(None, description="Whose loan it is, so that no other is ended by mistake")


class LocalGpu(Hosted):
    """A device of the server's machine."""

    gpu_id: Name = Field(examples=["gpu-0"])


class Order(LocalGpu):
    """An experiment to be trained on the server's machine."""

    experiment_id: Name


class Pair(Body):
    """Two experiments."""

    experiment_a: Name
    experiment_b: Name
