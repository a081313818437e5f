"""The account's rate limit."""

__all__ = ["TokenBucket"]


class TokenBucket:
    """Admit `per_second` requests on average and at most `burst` at once; the caller gives the time, in seconds."""

    __slots__ = ("_at", "_burst", "_level", "_per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError(f"a bucket that never admits: {per_second} per second, burst {burst}")
        self._per_second = per_second
        self._burst = burst
        self._level = burst
        self._at: float | None = None

    def admit(self, now: float) -> bool:
        """Take one token if available."""
        if self._at is not None:
            self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
