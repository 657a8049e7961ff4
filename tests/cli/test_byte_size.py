import click
import pytest

from cli.byte_size import ByteSize


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("24772608", 24_772_608),
        ("64GB", 64 * 10**9),
        ("64g", 64 * 10**9),
        ("1.5 GiB", 3 << 29),
        ("200MB", 200 * 10**6),
        ("2T", 2 * 10**12),
        ("512kib", 512 << 10),
    ],
)
def test_sizes_as_people_write_them(text, count):
    assert ByteSize().convert(text, None, None) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "64 gigs", "1iB", "nan", "9" * 30, "1,5G"])
def test_anything_else_is_refused(text):
    with pytest.raises(click.BadParameter, match="is no size; give bytes"):
        ByteSize().convert(text, None, None)
