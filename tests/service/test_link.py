"""Frames between the engine and its front processes: what is packed comes out, however the bytes are cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.answer import Answer, StageTimes, to_json
from service.errors import InvalidRequestError, Overloaded
from service.link import (
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameReader,
    Kind,
    frame_bytes,
    pack_answer,
    pack_refusal,
    pack_request,
    unpack_answer,
    unpack_refusal,
    unpack_request,
)
from service.origin import Origin
from service.problems import error_body
from service.query_tokenizer import Prepared

TIMES = StageTimes(0.0001, 0.0002, 0.0015, 0.0005, 0.0023)
FRAMES = st.lists(st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.binary(max_size=50)))


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 40)))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames: list[Frame], cuts: list[int]):
    data = b"".join(frame_bytes(kind, number, payload[:7], payload[7:]) for kind, number, payload in frames)
    reader, found = FrameReader(), list[Frame]()
    for size in cuts:
        found += reader.feed(data[:size])
        data = data[size:]
    assert found + list(reader.feed(data)) == frames


def test_a_part_of_a_frame_is_none():
    whole = frame_bytes(Kind.REQUEST, 7, b"payload")
    for cut in range(len(whole)):
        assert list(FrameReader().feed(whole[:cut])) == []


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ((MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little") + bytes(9), "16,777,217 bytes"),
        (bytes(4) + b"\xff" + bytes(8), "255 is not a valid Kind"),
    ],
)
def test_what_is_no_frame_is_an_error(data: bytes, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        list(FrameReader().feed(data))


@pytest.mark.parametrize("prepared", [None, Prepared("tag", "größe 🙂\u2028", [101, 7, 102])])
def test_a_request_keeps_origin_and_body(prepared: Prepared | None):
    origin = Origin("10.0.0.1", 1234.000000123, "canary", None, prepared)
    assert unpack_request(b"".join(pack_request(origin, b'{"query": "\n"}'))) == (origin, b'{"query": "\n"}')


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("fields", [(), ("title", "bid")])
def test_an_answer_is_written_alike_in_both_processes(count: int, fields: tuple[str, ...]):
    values = {"title": [b'"a\\nb"', b'"\xc3\xa9,"', b"null"], "bid": [b"0.5", b"1", b"null"]}
    answer = Answer(
        request_id='q"1',
        release="r1",
        model_version="m",
        index_version="i",
        json_ids=[b'"a\\n1"', b'"b,2"', b'"c"'][:count],
        scores=np.array([0.9, 0.1234567, -0.5], dtype=np.float32)[:count],
        columns={name: values[name][:count] for name in fields},  # type: ignore[misc]
        coverage={"complete": False, "reason": "filtered", "degraded": ["smaller_ef_search"]},
        cached=True,
        times=TIMES,
    )
    assert to_json(unpack_answer(pack_answer(answer))) == to_json(answer)


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("too many queries are waiting already", 1.5),
        InvalidRequestError("top_k: too large", [{"field": "top_k", "message": "too large"}]),
    ],
)
def test_a_refusal_is_answered_alike_in_both_processes(error: Overloaded | InvalidRequestError):
    error.request_id = "q-1"
    relayed = unpack_refusal(pack_refusal(error))
    assert error_body(relayed) == error_body(error)
    assert relayed.headers() == error.headers()
    assert (relayed.status, relayed.closes_connection) == (error.status, error.closes_connection)
