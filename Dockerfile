# The node as an image: docs/containers.md says how to build, run, upgrade and back it up.
#
#   docker build -t neuroseg-node .                                        for the processor
#   docker build -t neuroseg-node:gpu --build-arg TORCH_BUILD=cu126 .      for NVIDIA GPUs
#
# Research use only. Not a medical device.

# Debian 12 brings Python 3.11.
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

# -- what runs, in a virtual environment ----------------------------------------------------------
FROM ${DEBIAN_IMAGE} AS build
# torch has an index for each of its builds: cpu, or one for a CUDA version.
ARG TORCH_BUILD=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils ca-certificates python3-venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN python3 -m venv --without-pip /opt/venv && python3 -m venv /opt/tools
WORKDIR /opt/neuroseg
COPY pyproject.toml requirements.lock ./
# Every file is the one that the lock has the hash of, but torch's builds for GPUs and what they ask for.
# The project's own files come later, so that a change of them costs no download.
RUN mkdir node converters inference \
 && touch README.md LICENSE node/__init__.py converters/__init__.py inference/__init__.py \
 && pip="/opt/tools/bin/python -m pip --python /opt/venv/bin/python" \
 && index=${TORCH_INDEX:+--extra-index-url=$TORCH_INDEX/$TORCH_BUILD} \
 && torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock) \
 && if [ "$TORCH_BUILD" != cpu ]; then $pip install --no-compile $index "$torch+$TORCH_BUILD"; fi \
 && $pip install --no-compile --require-hashes --no-deps $index --requirement requirements.lock \
 && $pip install --no-compile --no-deps --no-build-isolation --editable .
# What never runs here: headers and test programs of C++, the libraries' own test suites, what OpenVINO
# has for other devices than the processor and for other formats than torch's, symbols for debuggers.
RUN /opt/tools/bin/python -m pip --python /opt/venv/bin/python uninstall -q -y setuptools \
 && cd /opt/venv/lib/python3.11/site-packages \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && rm -rf torch/include torch/test openvino/include openvino/libs/cache.json \
    openvino/libs/*_gpu_plugin.so openvino/libs/*_npu_plugin.so \
 && find openvino/libs -name '*_frontend.so*' ! -name '*_pytorch_*' ! -name '*_ir_*' -delete \
 && find . -type d -name tests -prune -exec rm -rf {} + \
 && strip --strip-unneeded torch/lib/libtorch*.so _libjpeg*.so _openjpeg*.so _CharLS*.so
# Nobody can write compiled modules later, so those that every start imports are written now.
RUN /opt/venv/bin/python -c "import dbos, dicom2nifti, dicomweb_client, dynamic_network_architectures, \
highdicom, httpx, jinja2, monai.networks.nets, nibabel, openvino.frontend.pytorch.ts_decoder, PIL.Image, \
prometheus_client, psycopg, pydantic_settings, pylibjpeg, pynetdicom, requests, safetensors.torch, \
scipy.ndimage, scipy.optimize, scipy.spatial, sqlalchemy.dialects.sqlite, starlette.applications, structlog, \
uvicorn, yaml"
# The list of what is inside (CycloneDX), made by a tool that stays outside.
RUN /opt/tools/bin/pip install cyclonedx-bom==7.3.1 \
 && /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
    --output-reproducible --of JSON -o sbom.cdx.json /opt/venv/bin/python
COPY README.md LICENSE ./
COPY converters converters
COPY inference inference
COPY node node
RUN /opt/venv/bin/python -m compileall -q converters inference node

# -- the model: what models/ holds, or one that is fetched from Weights & Biases ------------------
FROM build AS models
COPY models models
COPY requirements-fetch.lock ./
COPY scripts/fetch_model.py scripts/
# WANDB_MODEL=entity/project/name:v7 fetches one; its key comes by a secret mount and stays nowhere:
#   --secret id=wandb_api_key,src=key.txt --build-arg WANDB_MODEL=... --build-arg MODEL_ID=...
ARG WANDB_MODEL=
ARG WANDB_DIGEST=
ARG WANDB_BASE_URL=https://api.wandb.ai
ARG MODEL_ID=
ARG MODEL_VERSION=1.0.0
ARG MODEL_TEMPLATE=
# Without WANDB_MODEL: which folder of models/ is served.
ARG MODEL=demo-glioma
RUN --mount=type=secret,id=wandb_api_key \
    if [ -z "$WANDB_MODEL" ]; then ln -s "$MODEL" models/serving && test -f models/serving/model.toml; else \
      /opt/tools/bin/python -m pip --python /opt/venv/bin/python install --require-hashes --no-deps \
        ${TORCH_INDEX:+--extra-index-url=$TORCH_INDEX/$TORCH_BUILD} --requirement requirements-fetch.lock \
      && WANDB_BASE_URL="$WANDB_BASE_URL" /opt/venv/bin/python -m scripts.fetch_model "$WANDB_MODEL" \
        ${WANDB_DIGEST:+--digest "$WANDB_DIGEST"} ${MODEL_TEMPLATE:+--template "$MODEL_TEMPLATE"} \
        --id "$MODEL_ID" --version "$MODEL_VERSION" \
        --api-key-file /run/secrets/wandb_api_key -o models/serving \
      && rm -rf models/demo-glioma; fi

# -- what is shipped ------------------------------------------------------------------------------
FROM ${DEBIAN_IMAGE}
ARG SOURCE_REVISION=unknown
LABEL org.opencontainers.image.title="NeuroSeg Node" \
      org.opencontainers.image.description="Brain MR studies in, tumour segmentations back as DICOM SEG. Research use only." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${SOURCE_REVISION}"
# tini reaps processes and hands signals on; the roles also rely on not being children of PID 1.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && groupadd --gid 10001 neuroseg \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin neuroseg \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/neuroseg
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/neuroseg /opt/neuroseg
COPY --from=models /opt/neuroseg/models /opt/neuroseg/models
COPY deploy/container/node.toml /opt/neuroseg/config/node.toml
WORKDIR /opt/neuroseg
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /var/lib/neuroseg
EXPOSE 11112 8080
# Healthy: a study sent now would be segmented. A container of one role has its own check.
HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ.get('NEUROSEG_WEB__PORT', '8080') + '/readyz', timeout=8)"]
ENTRYPOINT ["/usr/bin/tini", "--", "neuroseg"]
CMD ["serve"]
