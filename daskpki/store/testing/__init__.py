"""Test suites that every store passes, as pytest classes: part of the public API.

    class TestMyStore(SecretStoreSuite):
        @pytest.fixture
        def backing(self, tmp_path: Path) -> Backing:
            return MyBacking(tmp_path)

`SecretStoreSuite` tests payloads, `RecordLogSuite` the log; a `Backing` is the place that they run in. For readable
assertion messages, call `pytest.register_assert_rewrite("daskpki.store.testing")` in a conftest before the import. No
other module of the package imports pytest.
"""

from daskpki.store.testing.backing import Backing
from daskpki.store.testing.record_log import RecordLogSuite
from daskpki.store.testing.secret_store import SecretStoreSuite

__all__ = ["Backing", "RecordLogSuite", "SecretStoreSuite"]
