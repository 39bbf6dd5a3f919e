"""When a night ends."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mcp_server.errors import InvalidInput
from mcp_server.night.record import Standing


@dataclass(frozen=True)
class Limits:
    """What ends a night, whichever comes first; None is no limit.

    Attributes:
        until: seconds since the epoch.
        experiments: verdicts since the night began.
        training_seconds: seconds that trainings took since the night began, summed over devices.
    """

    until: float | None = None
    experiments: int | None = None
    training_seconds: float | None = None

    def reached(self, began: Standing, now: Standing, clock: float) -> str | None:
        """Which limit is reached, in words; None while none is.

        Args:
            began, now: where the run stood when the night began, and where it stands.
            clock: seconds since the epoch.
        """
        if now.target_reached:
            return "the target of the run is reached"
        if now.used_up:
            return f"the {now.max_experiments} experiments of the run (max_experiments) are used up"
        if self.experiments is not None and now.decided - began.decided >= self.experiments:
            return f"{self.experiments} experiments are done"
        if self.training_seconds is not None and now.training_seconds - began.training_seconds >= self.training_seconds:
            return f"{self.training_seconds / 3600:g} GPU hours are used"
        if self.until is not None and clock >= self.until:
            return f"it is {_local(self.until):%H:%M}"
        return None

    def left(self, began: Standing, now: Standing) -> int | None:
        """How many experiments are still to get their verdict; None without a limit."""
        return None if self.experiments is None else max(0, self.experiments - (now.decided - began.decided))

    def described(self, today: date | None = None) -> str:
        """The limits in words, with the day where that is another than `today`."""
        parts = []
        if self.until is not None:
            moment = _local(self.until)
            parts.append(f"until {moment:%H:%M}" if moment.date() == today else f"until {moment:%H:%M on %A}")
        if self.experiments is not None:
            parts.append(f"{self.experiments} experiments")
        if self.training_seconds is not None:
            parts.append(f"{self.training_seconds / 3600:g} GPU hours")
        return ", ".join(parts) or "until you stop it"


def _local(moment: float) -> datetime:
    return datetime.fromtimestamp(moment).astimezone()


def next_time(text: str, now: datetime) -> float:
    """The next time that a clock shows `text`, such as `08:00`, in seconds since the epoch.

    Raises:
        InvalidInput: it is no time of day.
    """
    try:
        wanted = datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise InvalidInput(f"until is {text!r}", "Give a time of day from 00:00 to 23:59, e.g. 08:00") from None
    today = datetime.combine(now.date(), wanted)  # without a zone, so that a change of the clocks tonight is seen
    moment = today if today > now.replace(tzinfo=None) else today + timedelta(days=1)
    return moment.timestamp()
