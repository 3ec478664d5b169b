"""What is compared of two transcripts' words."""

from __future__ import annotations

import numpy as np

from benchmarks.word_times import Word, times_apart


def test_beginnings_and_ends_of_equal_words_are_compared_and_no_others() -> None:
    ours = [Word("ask", 0.0, 0.5), Word("nut", 0.5, 1.0), Word("what", 1.0, 1.5)]
    others = [Word("ask", 0.1, 0.5), Word("not", 0.5, 1.0), Word("what", 1.0, 1.8)]

    apart = times_apart(ours, others)

    np.testing.assert_allclose(apart, [[0.1, 0.0], [0.0, 0.3]])
