# The web page and the API in a container, for docker or podman:
#
#   docker build -t simsearch .
#   docker run -p 8000:8000 -v "$PWD/outputs:/srv/outputs" -v "$PWD/dataset:/srv/dataset:ro" simsearch
#
# It prints the address with its token (say localhost for the name in it), or takes a token of yours:
# -e SIMSEARCH_TOKEN=...
FROM python:3.12-slim

WORKDIR /build
# Every package but PyTorch: exactly these files, or the build fails. `make lock` renews the list.
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r requirements.lock

# PyTorch's build without CUDA is a tenth of the size. Leave the index out for a GPU. It is the one
# package without a recorded digest: its index has other files than PyPI.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY simsearch simsearch
RUN pip install --no-cache-dir --no-deps . && pip check

# The library's paths are relative to the folder that holds dataset/ and outputs/.
RUN useradd --create-home --uid 1000 simsearch
USER simsearch
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/api/health', timeout=5)"]
ENTRYPOINT ["simsearch"]
CMD ["serve", "outputs", "--root", "dataset", "--host", "0.0.0.0"]
