"""Fixtures of the tests of trainings."""

import logging

import pytest
from ultralytics.utils import LOGGER


@pytest.fixture
def log(caplog):
    """The messages of Ultralytics' logger, which is ours, too."""
    LOGGER.addHandler(caplog.handler)
    yield caplog
    LOGGER.removeHandler(caplog.handler)


@pytest.fixture
def warnings(log):
    """Return the warnings so far."""
    return lambda: [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
