"""The variable `result` as JSON: what JSON can hold, and the few types that have one obvious form in it."""
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import uuid

RESULT_BYTES_MAX = 256 * 1024


class Unfit(Exception):
    """The value cannot be given back; the text says why."""


def _plain(value):
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if isinstance(value, (collections.deque, range, type({}.keys()), type({}.values()), type({}.items()))):
        return list(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PurePath)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")


def as_json(value):
    """A value that json.dumps() takes for certain."""
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unfit("result holds text that is not valid Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise Unfit(f"result cannot be given back as JSON: {error}") from None
    if len(text) > RESULT_BYTES_MAX:
        raise Unfit(f"result is larger than {RESULT_BYTES_MAX >> 10} KiB of JSON; give back less, or write it to files")
    return json.loads(text)
