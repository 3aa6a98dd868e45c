"""The configuration in which the official SDKs meet the fake provider: a model and an agent for each way out."""

from .model_api import ModelApi

ADAPTERS = {"openai": {"type": "openai", "responses": "false"}, "anthropic": {"type": "anthropic"}}
STATUSES = (400, 401, 403, 404, 429, 500, 529)
SDK_NAMES = ("chat", "responses", "messages", "node")


def failing(adapter: str, status: int, who: str) -> str:
    """A model that always fails with this status; each caller has its own, so that no breaker of one is seen by another."""
    return f"fails-{adapter}-{status}-{who}"


def flaky(adapter: str, status: int, who: str) -> str:
    """A model that fails once with this status and then answers."""
    return f"flaky-{adapter}-{status}-{who}"


def gateway_config(api: ModelApi, who: tuple[str, ...] = ()) -> dict:
    """`who`: the callers that get failing models of their own."""
    providers, models = [], []

    def add(name: str, provider: dict, **more) -> None:
        providers.append(provider)
        models.append({"name": name, "max_output_tokens": 4000, "retries": 0,
                       "targets": [{"provider": provider["name"], "model": f"real-{name}"}], **more})

    for adapter, kind in ADAPTERS.items():
        add(adapter, api.provider(adapter, **kind))
    add("responses", api.provider("responses", "openai", responses="true"))
    models.append({"name": "vectors", "embedder": "true", "targets": [{"provider": "openai", "model": "real-vectors"}]})
    for adapter, kind in ADAPTERS.items():
        for caller in who:
            for status in STATUSES:
                name = failing(adapter, status, caller)
                add(name, api.provider(name, prefix=f"/fail/{status}/{caller}", **kind))
            for status in (429, 500):
                name = flaky(adapter, status, caller)
                add(name, api.provider(name, prefix=f"/flaky/{status}/1/{caller}-{adapter}", **kind))
    agents = [{"name": adapter, "model": adapter, "instructions": "You are an agent.", "tools": ["text_processing"]}
              for adapter in ADAPTERS]
    return {"providers": providers, "models": models, "agents": agents}
