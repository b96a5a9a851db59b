from __future__ import annotations

import pytest

from backend.apps.agents.tests.servers import Accounts, make_accounts


@pytest.fixture(scope="session")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Accounts:
    """What every served site begins with."""
    return make_accounts(tmp_path_factory.mktemp("accounts"))
