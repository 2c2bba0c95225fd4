"""The configuration that is shipped, as the drain check runs it."""

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.nginx import SHIPPED, NginxMissingError, configure, find_nginx

FLAGS = Path("/scratch/flags")


def test_the_shipped_configuration_names_ports_and_flags_only_where_they_are_replaced():
    configuration = configure(SHIPPED.read_text(encoding="utf-8"), 7000, (7001, 7002), FLAGS)
    assert "listen 127.0.0.1:7000;" in configuration
    assert configuration.count("127.0.0.1:7001") == configuration.count("127.0.0.1:7002") == 3
    assert "/scratch/flags/1.away" in configuration
    assert "10.0.0." not in configuration
    assert " /run/hlm/" not in configuration


def test_a_group_without_a_replica_has_it_as_backup_only():
    configuration = SHIPPED.read_text(encoding="utf-8")
    groups = {
        name: configuration.split(f"upstream {name} {{")[1].split("}")[0] for name in ("hlm_without_1", "hlm_without_2")
    }
    assert "10.0.0.1:8080 max_fails=0 backup;" in groups["hlm_without_1"]
    assert "10.0.0.2:8080 max_fails=0;" in groups["hlm_without_1"]
    assert "10.0.0.2:8080 max_fails=0 backup;" in groups["hlm_without_2"]
    assert "10.0.0.1:8080 max_fails=0;" in groups["hlm_without_2"]


def test_a_configuration_without_what_is_replaced_is_refused():
    with pytest.raises(BenchmarkError, match=r"expected `10\.0\.0\.2:8080` in it"):
        configure("listen 80; server 10.0.0.1:8080;", 7000, (7001, 7002), FLAGS)


def test_a_missing_nginx_says_how_to_get_it():
    with pytest.raises(NginxMissingError, match="apt-get download nginx && dpkg -x"):
        find_nginx("/nowhere/nginx")
