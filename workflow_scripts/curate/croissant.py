"""Croissant metadata of a curated set, with the responsible-AI fields.

Croissant Format Specification 1.1 (MLCommons, 2026-01-29), http://mlcommons.org/croissant/1.1;
Croissant RAI Specification 1.0, http://mlcommons.org/croissant/RAI/1.0. `tests/curate/` validates
the metadata with MLCommons' own reader.
"""

from typing import Any, Final

import pyarrow as pa

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.curate.card import remaining_words
from workflow_scripts.curate.described import IMAGE, PROMPT, Described, number
from workflow_scripts.curate.terms import ACCESS_WORDS

CROISSANT: Final = "http://mlcommons.org/croissant/1.1"
RAI: Final = "http://mlcommons.org/croissant/RAI/1.0"
RECORDS: Final = "images"
"""The name of the record set."""

_CITE: Final = (
    "@article{chexgenbench, title={CheXGenBench: A Unified Benchmark For Fidelity, Privacy and "
    "Utility of Synthetic Chest Radiographs}}"
)

# The specification's own context (its section "Example").
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(described: Described) -> dict[str, Any]:
    """Return the metadata. The shards' paths are relative to the metadata file."""
    terms = described.terms
    metadata: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": described.name,
        "description": (
            f"{described.images} synthetic chest radiographs, drawn by the text-to-image model "
            f"{described.model} and chosen by measured limits. The set "
            f"{ACCESS_WORDS[terms.access]}."
        ),
        "license": terms.link or terms.licence,
        "version": described.version,
        "isLiveDataset": False,
        "citeAs": _CITE,
        "creator": {"@type": "sc:Organization", "name": "made with CheXGenBench"},
        "keywords": ["chest radiographs", "synthetic", "text-to-image", "CheXpert findings"],
        "inLanguage": "en",
        **_responsible(described),
    }
    if described.shards:
        metadata["distribution"] = _distribution(described)
        metadata["recordSet"] = [_records(described)]
    return metadata


def _responsible(described: Described) -> dict[str, Any]:
    """Return the responsible-AI fields: what is known, and what is not."""
    decision, terms = described.decision, described.terms
    pool = decision["pool"]
    rare = [name for name in FINDINGS if described.positives[name] == 0]
    kinds = [str(p.get("words", p["kind"])) for p in decision["planted"] if p["planted"]]
    planted = ", ".join(kinds) or "none"
    limits = "; ".join(f"{p['words']}: {number(p.get('limit'))}" for p in decision["policy"])
    return {
        "rai:dataCollection": (
            f"Images were sampled from the model {described.model} for the prompt set "
            f"{pool['prompt_set']} ({number(pool.get('images'))} images) and filtered."
        ),
        "rai:dataCollectionType": [
            "Software Collection",
            "Others: sampled from a generative model",
        ],
        "rai:dataCollectionRawData": (
            f"The model learned from {described.cohort} ({terms.training_data.licence}). "
            "Its radiographs are not part of the set."
        ),
        "rai:dataCollectionMissingData": (
            "A finding that the prompt does not mention is null. Sex, age, device and hospital are "
            "not known."
        ),
        "rai:dataPreprocessingProtocol": [f"Images were kept by these limits. {limits or 'None.'}"],
        "rai:dataManipulationProtocol": (
            "Leaks of known kinds were planted in the pool to test the filter, and removed by "
            f"their ids. Kinds: {planted}."
        ),
        "rai:dataAnnotationProtocol": (
            "Labels are the findings that each prompt asks for. No human labelled an image."
        ),
        "rai:annotationsPerItem": "0",
        "rai:machineAnnotationTools": ["CheXpert labels of the prompts' reports, or templates"],
        "rai:dataBiases": [
            "The model repeats the biases of the radiographs that it learned from.",
            *([f"No image was asked to show: {', '.join(rare)}."] if rare else []),
        ],
        "rai:dataLimitations": [
            "Labels say what was asked for, not what a radiologist sees.",
            remaining_words(described),
            *(f"Not tested: {text}" for text in decision["not_tested"]),
        ],
        "rai:dataUseCases": [
            "Research on methods that learn from or are tested on synthetic radiographs.",
            "Not for diagnosis.",
        ],
        "rai:dataSocialImpact": (
            "A memorised image would show a patient. The decision, its limits and its measured "
            "values are in decision.json."
        ),
        "rai:personalSensitiveInformation": [
            "The images are of health. Whether they resemble patients' radiographs was tested.",
            *terms.conditions,
        ],
        "rai:dataReleaseMaintenancePlan": [
            "Whoever releases the set names the person responsible for it.",
        ],
    }


def _distribution(described: Described) -> list[dict[str, Any]]:
    files = [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "description": "A shard of the images.",
            "contentUrl": shard.name,
            "contentSize": f"{shard.size} B",
            "encodingFormat": "application/x-parquet",
            "sha256": shard.sha256,
        }
        for shard in described.shards
    ]
    together = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "All shards, read as one table.",
        "encodingFormat": "application/x-parquet",
        # Without `containedIn` the reader looks for the files in this file's folder.
        "includes": "data/*.parquet",
    }
    return [*files, together]


def _records(described: Described) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": RECORDS,
        "name": RECORDS,
        "description": "One record for each image.",
        "field": [_field(column) for column in described.schema],
    }


def _field(column: pa.Field) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}}
    description = "A score of the image."
    if column.name == IMAGE:
        source["transform"] = {"jsonPath": "bytes"}
        description = "The image, as PNG."
    elif column.name in FINDINGS:
        description = "The finding in the prompt: 1 yes, 0 no, -1 uncertain, null not mentioned."
    elif column.name == PROMPT:
        description = "The text that the image was drawn from."
    return {
        "@type": "cr:Field",
        "@id": f"{RECORDS}/{column.name.replace(' ', '_')}",  # the reader refuses spaces here
        "name": column.name,
        "description": description,
        "dataType": _type(column),
        "source": source,
    }


def _type(column: pa.Field) -> str:
    if column.name == IMAGE:
        return "sc:ImageObject"
    if column.name in FINDINGS:
        return "sc:Float"  # a column of integers with nulls is read as float
    if pa.types.is_boolean(column.type):
        return "sc:Boolean"
    if pa.types.is_floating(column.type):
        return "sc:Float"
    return "sc:Integer" if pa.types.is_integer(column.type) else "sc:Text"
