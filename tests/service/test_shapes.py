"""Which shape a batch takes, and what the measured costs decide."""

import pytest

from service.shapes import Shape, ShapeCosts, batch_buckets, shapes_of

GRID = shapes_of((1, 2, 4), (8, 16), 32)
BY_TOKENS = ShapeCosts({shape: shape.batch * shape.length / 1e6 for shape in GRID})


@pytest.mark.parametrize(
    ("largest", "buckets"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12)), (32, (1, 2, 4, 8, 16, 32))],
)
def test_batch_buckets_are_powers_of_two_up_to_the_largest(largest: int, buckets: tuple[int, ...]):
    assert batch_buckets(largest) == buckets


def test_shapes_are_all_combinations_and_none_is_longer_than_any_text():
    assert shapes_of((2, 1, 2), (16, 8, 64), 24) == [(1, 8), (1, 16), (1, 24), (2, 8), (2, 16), (2, 24)]
    assert shapes_of((1,), (8, 64), 64) == [(1, 8), (1, 64)]


@pytest.mark.parametrize(
    ("rows", "length", "expected"),
    [(1, 1, (1, 8)), (1, 8, (1, 8)), (1, 9, (1, 16)), (2, 17, (2, 32)), (3, 3, (4, 8)), (4, 32, (4, 32))],
)
def test_a_batch_takes_the_smallest_shape_around_it(rows: int, length: int, expected: tuple[int, int]):
    assert BY_TOKENS.shape_for(rows, length) == expected


@pytest.mark.parametrize(("rows", "length"), [(5, 8), (1, 33)])
def test_what_is_larger_than_every_shape_is_refused(rows: int, length: int):
    with pytest.raises(ValueError, match=rf"^a batch of {rows} × {length} tokens where Shape\(batch=4, length=32\)"):
        BY_TOKENS.shape_for(rows, length)


def test_a_larger_shape_is_taken_where_it_was_measured_to_be_cheaper():
    costs = ShapeCosts({Shape(1, 8): 3e-3, Shape(1, 16): 1e-3, Shape(2, 8): 4e-3, Shape(2, 16): 2e-3})
    assert costs.shape_for(1, 8) == (1, 16)
    assert costs.shape_for(2, 8) == (2, 16)
    assert costs.run_s(1, 8) == 1e-3
    assert costs.run_s(0, 0) == 0


def test_a_text_joins_a_batch_while_that_is_no_dearer_than_a_run_of_its_own():
    assert BY_TOKENS.better_together(1, 8, 8)  # 2 × 8 for 8 + 8
    assert not BY_TOKENS.better_together(1, 8, 9)  # 2 × 16 for 8 + 16
    assert not BY_TOKENS.better_together(2, 8, 8)  # 4 × 8 for 16 + 8
    assert not BY_TOKENS.better_together(4, 8, 8)  # no shape has five rows
    assert not BY_TOKENS.better_together(1, 8, 33)  # or this length
    launch_bound = ShapeCosts({shape: 1e-3 + shape.batch * shape.length / 1e6 for shape in GRID})
    assert all(launch_bound.better_together(rows, 8, 32) for rows in (1, 2, 3))


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ((1.0, 1.0, 1.0, 1.0), 8),  # launches are all that costs
        ((1.0, 1.1, 2.1, 4.2), 2),  # 1.00, 1.82, 1.90 and 1.90 rows a millisecond
        ((1.0, 1.1, 2.1, 3.9), 4),  # 1.00, 1.82, 1.90 and 2.05
        ((1.0, 2.0, 4.0, 8.0), 1),  # a batch saves nothing
    ],
)
def test_the_batch_size_is_where_the_rate_stops_to_grow(milliseconds: tuple[float, ...], expected: int):
    costs = ShapeCosts({Shape(size, 8): ms / 1e3 for size, ms in zip((1, 2, 4, 8), milliseconds, strict=True)})
    assert costs.max_batch_size() == expected
