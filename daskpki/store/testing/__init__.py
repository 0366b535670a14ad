"""Conformance suites for stores, as pytest classes: whoever writes a store subclasses both.

    class TestMySecretStore(SecretStoreSuite):
        @pytest.fixture
        def backing(self) -> Backing: ...

`daskpki.store.testing.backing` says what a backing is. For readable assertion messages, call
`pytest.register_assert_rewrite("daskpki.store.testing")` in a conftest. Only these modules import pytest and
hypothesis.
"""
