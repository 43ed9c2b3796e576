import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GPT2LAB_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("the shared data folder is not on this machine (GPT2LAB_SHARED_DATA)")
    return folder
