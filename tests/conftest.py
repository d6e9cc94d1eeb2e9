"""What all tests share: the repository's root and where the real data sets are, if anywhere."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads of several workers would wait for each other
# Tests run in the background would have their children ignore Ctrl-C, which some of them are there to try.
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data sets: $AIP_DATA, by default ../shared/data beside the repository; skips where they are absent."""
    folder = Path(os.environ.get("AIP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; set AIP_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Converted teachers are kept for this session alone, also by the processes that tests start."""
    os.environ["AIP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
