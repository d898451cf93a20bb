"""Drive a service by many hostile, split and abandoned requests, and check every reply.

bjoern keeps state of its own for each connection, and memory that a bug may hand to another one.
Such a bug shows when many connections are opened, misused and left at the same time, and only if
each reply is checked to belong to its request. Therefore each connection steps a sequence of its
own, whose id and position stand in every reply to a step.

Three kinds of trials are made at once, `run.CONCURRENT` of them at a time:

* `Split`: a request of `tests.hostile` or a valid one, whole or in two pieces, the second one sent
  when the service has read the first. A step follows on the same connection.
* `Leave`: a request whose client is gone within it, before, within or after the reply, by FIN, by
  RST, or by closing with an earlier reply unread; or that sends no more and reads on.
* Bystanders step, and fetch terms whose digits are known, for as long as the others last.

AddressSanitizer reports a bug where it is made. It needs a bjoern built from its own source
distribution (Debian: ``libev-dev`` and ``gcc``), without its assertions, as wheels have it::

    CFLAGS="-fsanitize=address -g -fno-omit-frame-pointer -DNDEBUG" LDFLAGS=-fsanitize=address \
      .venv/bin/python -m pip install --no-deps --no-binary :all: --target build/asan bjoern==3.2.2
    BIGFIB_TEST_ASAN=build/asan make test ARGS='-n 0 tests/test_campaign.py'

By the variable only the service runs with that bjoern. The first report, on its standard error,
ends it with status 99, which fails the campaign and is shown.
"""
