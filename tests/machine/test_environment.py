"""What a training sees of the user's environment, by the names that things have in the world."""

import json
import os
from typing import Any

import pytest

from mcp_server.machine.environment import scrubbed, worker_environment
from mcp_server.settings import Settings

CREDENTIALS = {
    "AUTORESEARCH_TOKEN": "0123456789abcdef",
    "AUTORESEARCH_TOKEN_FILE": "/home/me/token",
    # clouds
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEBYa",
    "AWS_PROFILE": "production",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials",
    "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/gcp.json",
    "GOOGLE_API_KEY": "AIzaSyA-1234567890",
    "CLOUDSDK_AUTH_ACCESS_TOKEN": "ya29.a0",
    "AZURE_CLIENT_SECRET": "x~8Q",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountKey=abc",
    "DIGITALOCEAN_ACCESS_TOKEN": "dop_v1_0",
    "KUBECONFIG": "/home/me/.kube/config",
    "VAULT_TOKEN": "hvs.CAES",
    "RUNPOD_API_KEY": "rpa_0",
    "LAMBDA_API_KEY": "secret_0",
    "VAST_API_KEY": "0",
    "MODAL_TOKEN_SECRET": "as-0",
    # code
    "GITHUB_TOKEN": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "GH_TOKEN": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "GITHUB_PAT": "github_pat_11ABCDEFG",
    "GITLAB_TOKEN": "glpat-0",
    "CI_JOB_TOKEN": "0",
    "CI_JOB_JWT": "eyJhbGciOiJSUzI1NiJ9",
    "ACTIONS_RUNTIME_TOKEN": "0",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://example/",
    "BITBUCKET_APP_PASSWORD": "0",
    "GIT_ASKPASS": "/usr/bin/askpass",
    "SSH_ASKPASS": "/usr/bin/askpass",
    "SSH_AUTH_SOCK": "/tmp/ssh-0/agent.1",
    "SSH_PRIVATE_KEY": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "GPG_AGENT_INFO": "/run/user/0/gnupg",
    "GNUPGHOME": "/home/me/.gnupg",
    # models and data
    "HF_TOKEN": "hf_0123456789abcdefghij",
    "HUGGING_FACE_HUB_TOKEN": "hf_0123456789abcdefghij",
    "HF_TOKEN_PATH": "/home/me/.hf",
    "OPENAI_API_KEY": "sk-0",
    "ANTHROPIC_API_KEY": "sk-ant-0",
    "GEMINI_API_KEY": "AIza0",
    "MISTRAL_API_KEY": "0",
    "WANDB_API_KEY": "0",
    "COMET_API_KEY": "0",
    "NEPTUNE_API_TOKEN": "0",
    "MLFLOW_TRACKING_PASSWORD": "0",
    "KAGGLE_KEY": "0",
    "KAGGLE_USERNAME": "me",
    "NGC_API_KEY": "0",
    "REPLICATE_API_TOKEN": "r8_0",
    # packages
    "PIP_INDEX_URL": "https://me:s3cret@pypi.example/simple",
    "PIP_EXTRA_INDEX_URL": "https://me:s3cret@pypi.example/simple",
    "UV_INDEX_URL": "https://me:s3cret@pypi.example/simple",
    "UV_PUBLISH_TOKEN": "pypi-0",
    "TWINE_PASSWORD": "0",
    "NPM_TOKEN": "npm_0",
    "CARGO_REGISTRY_TOKEN": "0",
    "DOCKER_AUTH_CONFIG": "{}",
    "DOCKER_PASSWORD": "0",
    # databases and services
    "DATABASE_URL": "postgresql://me:s3cret@db/research",
    "REDIS_URL": "redis://:s3cret@cache:6379",
    "MONGODB_URI": "mongodb://me:s3cret@db",
    "PGPASSWORD": "0",
    "PGPASSFILE": "/home/me/.pgpass",
    "MYSQL_PWD": "0",
    "SENTRY_DSN": "https://0@sentry.example/1",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/services/T0",
    "SLACK_BOT_TOKEN": "xoxb-0",
    "STRIPE_SECRET_KEY": "sk_live_0",
    "TWILIO_AUTH_TOKEN": "0",
    "SMTP_PASS": "0",
    "SECRET": "0",
    "MY_PASSWORD": "0",
    "SUDO_ASKPASS": "/usr/bin/askpass",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/0/bus",
    "XAUTHORITY": "/home/me/.Xauthority",
    "DISPLAY": ":0",
    "http_proxy": "http://me:s3cret@proxy:3128",
    "HTTPS_PROXY": "http://me:s3cret@proxy:3128",
    "TAVILY": "an unknown service's key",
    # hidden behind a beginning that is kept
    "NVIDIA_API_KEY": "nvapi-0",
    "NVIDIA_PAT": "0",
    "NVIDIA_NIM": "nvapi-0123456789abcdefghij",
    "CUDA_PASS": "0",
    "NCCL_AUTH": "0",
    "LC_GITHUB": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "LC_SECRET": "0",
    # behind a name that is kept
    "CURL_CA_BUNDLE": "https://me:s3cret@example/ca.pem",
}
"""Names under which secrets, and ways to them, stand in environments, with values of their kind."""

NEEDED = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LANG": "de_DE.UTF-8",
    "LC_ALL": "C",
    "TZ": "Europe/Berlin",
    "SSL_CERT_FILE": "/etc/ssl/cert.pem",
    "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
    "CUDA_HOME": "/usr/local/cuda",
    "NCCL_DEBUG": "INFO",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "HF_HOME": "/data/hf",
    "HF_HUB_OFFLINE": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
"""What a training needs to run as it does by hand."""


@pytest.mark.parametrize(("name", "value"), CREDENTIALS.items(), ids=CREDENTIALS)
def test_no_credential_is_handed_on(name: str, value: str) -> None:
    assert scrubbed({name: value}) == {}


def test_what_is_needed_is() -> None:
    assert scrubbed(NEEDED | CREDENTIALS) == NEEDED


def test_a_variable_that_the_user_named_is_taken_as_it_is() -> None:
    assert scrubbed(CREDENTIALS, ["WANDB_API_KEY"]) == {"WANDB_API_KEY": CREDENTIALS["WANDB_API_KEY"]}


def test_a_real_training_finds_none(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    script = (
        "import json, os\n"
        "json.dump(dict(os.environ), open(os.environ['AUTORESEARCH_OUT'] + '/environment.json', 'w'))\n"
        "print('loss: 1')\n"
    )
    end = yard.ending(script)
    assert end.status == "finished"
    [path] = yard.folder.rglob("environment.json")
    seen = json.loads(path.read_text())
    assert seen["AUTORESEARCH_SEED"]
    assert not CREDENTIALS.keys() & seen.keys()
    assert not [value for value in seen.values() if "s3cret" in value or "ghp_" in value or "0123456789abcdef" in value]


def test_neither_does_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    assert not CREDENTIALS.keys() & worker_environment(Settings.load()).keys()
    assert os.environ["GITHUB_TOKEN"]
