"""What is asked before a load is sent."""

from itertools import islice

from loadtest.preflight import check_service
from loadtest.traffic import Traffic
from tests.client.standin import answer, serve


def test_a_query_that_is_to_be_asked_only_once_is_left_to_the_load():
    traffic = Traffic(new_share=1.0, seed=7)
    with serve(lambda _: answer(["a"])) as service:
        check_service(service.url, traffic)
    [asked] = service.requests
    assert asked["query"] not in {request["query"] for request in islice(traffic.requests(), 100)}
