"""An agent of the multi-GPU tracker: it commits and trains by itself, and calls the tracker's routes."""

from typing import Any

import httpx2

NUMBERS: dict[str, Any] = {
    "val_bpb": 0.9979,
    "peak_vram_mb": 45060.2,
    "training_seconds": 300.1,
    "total_tokens_m": 499.6,
    "mfu_percent": 39.8,
    "num_steps": 953,
    "num_params_m": 50.3,
    "depth": 8,
}
"""The numbers of its published example."""


class Agent:
    """Calls the routes over an HTTP client, and fails where one refuses."""

    def __init__(self, client: httpx2.AsyncClient, tag: str = "mar11") -> None:
        self.client = client
        self.tag = tag

    async def call(self, route: str, **body: Any) -> dict[str, Any]:
        """The answer of a route; POST where there is a body."""
        response = await self._send(route, body)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert isinstance(answer, dict)
        return answer

    async def refused(self, route: str, **body: Any) -> tuple[int, str]:
        """The status and the error of a route that must refuse."""
        response = await self._send(route, body)
        assert response.status_code >= 400, response.text
        assert set(response.json()) == {"error"}
        return response.status_code, response.json()["error"]

    async def _send(self, route: str, body: dict[str, Any]) -> httpx2.Response:
        if not body:
            return await self.client.get(f"/api/{route}")
        return await self.client.post(f"/api/{route}", json=body, timeout=60)

    async def begin(self) -> dict[str, Any]:
        """Set the run up."""
        return await self.call("experiment/setup", tag=self.tag)

    async def register(self, hypothesis: str = "it helps", **more: Any) -> str:
        """Register an experiment; its id."""
        body = {
            "tag": self.tag,
            "hypothesis": hypothesis,
            "description": f"try: {hypothesis}",
            "category": "architecture",
            "commit_sha": "HEAD",
            "diff_summary": "DEPTH=8 -> DEPTH=12",
            "parent_id": None,
        }
        return str((await self.call("experiment/register", **(body | more)))["experiment_id"])

    async def attempt(self, value: float, **more: Any) -> dict[str, Any]:
        """Register an experiment and complete it with this val_bpb; the verdict."""
        experiment_id = await self.register(**more)
        return await self.complete(experiment_id, value)

    async def complete(self, experiment_id: str, value: float) -> dict[str, Any]:
        """Complete an experiment with this val_bpb."""
        return await self.call("experiment/complete", **(NUMBERS | {"experiment_id": experiment_id, "val_bpb": value}))

    async def enlist(self, gpu_id: str = "gpu-0", index: int = 0, **more: Any) -> dict[str, Any]:
        """Register a device."""
        given = {"gpu_id": gpu_id, "gpu_index": index, "gpu_name": "NVIDIA H100", "vram_mb": 81559}
        return dict((await self.call("pool/register", **given, **more))["worker"])
