"""`docker-compose.yml`, as far as it can be checked without containers; `test_cluster.py` runs its NATS servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()


@pytest.fixture
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(TEXT)
    return content


def test_everything_named_is_there(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert "image" in service or "build" in service, name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        assert set(service.get("networks", [])) <= set(compose["networks"]), name
        assert {each["source"] for each in service.get("configs", [])} <= set(compose["configs"]), name
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(compose["volumes"]), name
        build = service.get("build", {})
        if "dockerfile" in build:
            assert (ROOT / build["context"] / build["dockerfile"]).is_file(), name


def test_what_is_waited_for_can_tell_that_it_is_healthy(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                dockerfile = services[other].get("build", {}).get("dockerfile")
                own = "healthcheck" in services[other]
                assert own or "HEALTHCHECK" in (ROOT / dockerfile).read_text(), f"{name} waits for {other}"


def test_only_the_site_is_published_and_only_on_loopback(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(ports) == ["web"]
    assert all(port.startswith("127.0.0.1:") for port in ports["web"])


def test_every_secret_is_one_that_make_up_writes() -> None:
    wanted = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)\}", TEXT)) | set(re.findall(r"\$\{([A-Z_]+):\?", TEXT))
    (written,) = re.findall(r"for name in ([A-Z_ ]+); do", (ROOT / "Makefile").read_text())
    assert wanted == set(written.split())
