import pytest

from tests.service.small_artifacts import SmallArtifacts, make_artifacts


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallArtifacts:
    return make_artifacts(tmp_path_factory.mktemp("small"))
