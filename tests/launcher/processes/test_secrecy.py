"""The key stays within the process."""

import subprocess
import sys

import pytest

from jwtproxy.launcher.processes import secrecy

_SEALED = """
import ctypes, resource
from jwtproxy.launcher.processes import secrecy
secrecy.seal()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_nobody_reads_its_memory() -> None:
    done = subprocess.run([sys.executable, "-c", _SEALED], capture_output=True, text=True, check=True)
    assert done.stdout == "(0, 0) 0\n"


def test_what_has_been_read_is_forgotten() -> None:
    environ = {"JWT_SHARED_SECRET": "00", "JWT_KEY_PASSPHRASE": "x", "JWT_REDIS_URL": "y", "JWT_USER": "me"}
    secrecy.forget(environ)
    assert environ == {"JWT_USER": "me"}
    secrecy.forget(environ)
