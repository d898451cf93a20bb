# bigfib in a container, made and run as anywhere else: `make install`, and what `make run` does.
#
#   docker build -t bigfib .
#   docker run --read-only --memory 512m -p 127.0.0.1:8080:8080 -v bigfib:/var/lib/bigfib bigfib
#
# Settings are `-e BIGFIB_...`, flags after the image's name, or a file at /etc/bigfib/bigfib.toml.

FROM python:3.13-slim AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make

WORKDIR /opt/bigfib
COPY Makefile pyproject.toml hatch_build.py README.md LICENSE ./
COPY bigfib bigfib
RUN make install EXTRAS=postgres \
    # Nobody can write it later.
    && .venv/bin/python -m compileall -q bigfib

# The same Python at the same path, without the compiler.
FROM python:3.13-slim

RUN useradd --system --uid 10001 --home-dir /var/lib/bigfib --shell /usr/sbin/nologin bigfib \
    && install --directory --owner bigfib --group bigfib --mode 700 \
        /var/lib/bigfib /var/cache/bigfib

WORKDIR /opt/bigfib
COPY --from=build /opt/bigfib ./

ENV PATH=/opt/bigfib/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CONFIG_HOME=/etc \
    XDG_STATE_HOME=/var/lib \
    XDG_CACHE_HOME=/var/cache \
    # All that is in the container; which addresses of the host is for `docker run -p` to say.
    BIGFIB_HOST=0.0.0.0

# By number, for those who check that it is not root's.
USER 10001
VOLUME ["/var/lib/bigfib", "/var/cache/bigfib"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Who serves on another port says so by BIGFIB_PORT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import os; from urllib.request import urlopen; urlopen('http://127.0.0.1:' + (os.environ.get('BIGFIB_PORT') or '8080') + '/readyz', timeout=3)"]
# Not by make, which would stand between the service and its signals.
ENTRYPOINT ["bigfib"]
CMD ["serve"]
