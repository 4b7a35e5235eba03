# The web page and the API in a container, for docker or podman:
#
#   docker build -t simsearch .
#   docker run -p 8000:8000 -v "$PWD/outputs:/srv/outputs" -v "$PWD/dataset:/srv/dataset:ro" simsearch
#
# It prints the address with its token (say localhost for the name in it), or takes a token of yours:
# -e SIMSEARCH_TOKEN=...
FROM python:3.12-slim

# PyTorch's build without CUDA is a tenth of the size. Leave the index out for a GPU.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

WORKDIR /build
COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY simsearch simsearch
RUN pip install --no-cache-dir ".[web,faiss]"

# The library's paths are relative to the folder that holds dataset/ and outputs/.
RUN useradd --create-home --uid 1000 simsearch
USER simsearch
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/api/health', timeout=5)"]
ENTRYPOINT ["simsearch"]
CMD ["serve", "outputs", "--root", "dataset", "--host", "0.0.0.0"]
