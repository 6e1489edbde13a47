# The board in a container: one image for server, workers and beat; compose.yaml says which is which.
FROM python:3.11-slim
WORKDIR /board
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-build.txt requirements.txt ./
# Two steps, as in .ci/environment.sh: one package is published without a wheel, and what builds it is pinned, too.
RUN pip install --require-hashes -r requirements-build.txt \
    && pip install --require-hashes --no-build-isolation -r requirements.txt
COPY manage.py ./
COPY killboard killboard
COPY killmails killmails
COPY realtime realtime
COPY health health
RUN useradd --system board && mkdir var && chown board var
USER board
EXPOSE 4000
