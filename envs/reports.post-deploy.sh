#!/usr/bin/env bash
# Snakemake runs this in the environment of reports.yaml once it has made it; envs/reports.txt says
# why these packages are installed without their dependencies.
set -euo pipefail
python -m pip install --no-deps \
  appdirs==1.4.4 \
  blis==1.3.4 \
  catalogue==2.0.10 \
  cloudpathlib==0.26.0 \
  confection==0.1.5 \
  cymem==2.0.16 \
  datasets==4.4.1 \
  dill==0.4.0 \
  dotmap==1.3.30 \
  httpcore==1.0.9 \
  httpx==0.28.1 \
  huggingface_hub==0.36.2 \
  jsonpickle==4.1.4 \
  langcodes==3.5.1 \
  loguru==0.7.3 \
  medspacy==1.3.1 \
  medspacy_quickumls==3.2 \
  medspacy_unqlite==0.9.8 \
  multiprocess==0.70.18 \
  murmurhash==1.0.16 \
  preshed==3.0.15 \
  PyFastNER==1.0.10 \
  PyRuSH==1.0.13 \
  pysbd==0.3.4 \
  pysimstring==1.3.0 \
  quicksectx==0.4.1 \
  radeval==2.2.1 \
  radgraph==0.1.18 \
  RaTEScore==0.6.0 \
  spacy-legacy==3.0.12 \
  spacy-loggers==1.0.5 \
  spacy==3.8.11 \
  srsly==2.5.6 \
  thinc==8.3.11 \
  tokenizers==0.22.2 \
  transformers==4.57.6 \
  typer-slim==0.24.0 \
  Unidecode==1.4.0 \
  wasabi==1.1.3 \
  weasel==0.4.3 \
  xxhash==3.6.0
