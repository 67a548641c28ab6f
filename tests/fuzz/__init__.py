"""Fuzzers: whatever comes from outside is taken or refused by an OcidistError, in bounded time and memory.

A *target* (``targets/``) is a strategy that makes inputs and a check that one of them must pass, with an oracle where
there is one. Its *seeds* (``seeds/NAME.txt``) are inputs that are worth starting from: legal ones, and every one that
once broke something. They are run first, and mutated.

In the test run each target gets the same few hundred inputs; ``OCIDIST_FUZZ_SECONDS=600 pytest tests/fuzz`` gives each
that many seconds, from other random numbers each time. What hypothesis shows as the falsifying example goes into the seeds,
with a line that says why.
"""
