import pytest

from xception.deploy.server.shield import is_local, is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("::1:5", False),  # an address of its own: 0:0:0:0:0:0:1:5
        ("::1:8000", False),
        ("::", False),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, loopback: bool):
    assert is_loopback(host) == loopback


def test_the_host_of_a_request_may_have_a_port():
    assert all(map(is_local, ("localhost:8000", "127.0.0.1:80", "[::1]:5", "[::1]")))
    assert not any(map(is_local, ("example.org:80", "192.0.2.1", "[2001:db8::1]:80")))
