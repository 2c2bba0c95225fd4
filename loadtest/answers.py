"""What an answer of `POST /retrieve` is worth."""

import itertools
import json
from typing import Any

from loadtest.recorder import OK


def judge(status: int, body: bytes | None, top_k: int) -> tuple[str, dict[str, Any] | None]:
    """What an answer is, in words few enough to count by, and the answer where it is a well-formed 200."""
    try:
        answer = json.loads(body or b"")
        if status != 200:
            return f"{status} {answer['type']}", None
        check_answer(answer, top_k)
    except (json.JSONDecodeError, UnicodeDecodeError):  # whose messages differ from answer to answer
        return f"{status}, but not JSON", None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{status}, but malformed: {type(error).__name__}: {error}", None
    return OK, answer


def check_answer(answer: dict[str, Any], top_k: int) -> None:
    """Raise unless the ads are at most `top_k`, each once, in falling score.

    Raises:
        ValueError: they are not.
        KeyError, TypeError: this is no answer to `POST /retrieve`.
    """
    ads = answer["ads"]
    scores = [ad["score"] for ad in ads]
    if len(ads) > top_k:
        raise ValueError("more ads than asked for")
    if len({ad["ad_id"] for ad in ads}) < len(ads):
        raise ValueError("an ad comes twice")
    if any(score < following for score, following in itertools.pairwise(scores)):
        raise ValueError("scores do not fall")
    if not isinstance(answer["timings_ms"], dict) or not isinstance(answer["coverage"], dict):
        raise ValueError("timings_ms or coverage is no object")  # noqa: TRY004 - one kind for all
