"""A recipe: all that decides what a training run gives, read from YAML and never changed afterwards.

Paths are relative to the directory that the command runs in.

A recipe with a `base` says only what differs from another, and one with `arms` is a sweep: several recipes that differ
from it in the parts named under each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from train.errors import TrainError

SHIPPED = Path(__file__).parent / "recipes"
"""Recipes that are part of this program; a command takes them by name."""

LayerRule = Literal["norm_ratio", "keep_ends", "block_influence"]
Pooling = Literal["mean", "cls", "lasttoken"]
Objective = Literal["l2", "cosine", "kl", "kernel"]


class Part(BaseModel):
    """Base of all parts: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Part):
    """Files to learn from and to measure on; docs/training.md has their formats."""

    train: Annotated[list[Path], Field(min_length=1)]
    """Labelled sets whose train split teaches."""
    dev: Annotated[list[Path], Field(min_length=1)]
    """Labelled sets whose dev split measures; their ads belong to the inventory too."""
    more_ads: list[Path] = []
    """Feeds of further inventory, without labels."""
    ad_expansions: Path | None = None
    """What is added to the text of ads, such as searches that a language model expects for them. Ads are embedded
    before any query comes, so it costs nothing online."""
    queries: Path
    """Unlabelled queries, on which a student learns to land where its teacher does."""
    query_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How often a query is taken an epoch, by the beginning of its source's name; 1 where none fits, 0 leaves out."""
    held_out_queries: Annotated[int, Field(ge=1)] = 1000
    """Unlabelled queries that are never learnt from, on which alignment is measured."""


class Side(Part):
    """How one kind of text is read: the query or the ad."""

    prompt: str = ""
    max_tokens: Annotated[int, Field(ge=8)]


class Optimisation(Part):
    """AdamW, a linear warm-up, then a fall to nothing."""

    epochs: Annotated[float, Field(ge=0)] = 1
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    warm_up: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the steps."""
    schedule: Literal["cosine", "linear"] = "cosine"
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    dropout: bool = False
    """Whether the model's dropout is on. Nothing is learnt by heart in an epoch or two, and noise blurs the aim."""
    steps_per_save: Annotated[int, Field(ge=1)] = 200
    """Steps that a killed run loses at most."""


class Contrastive(Part):
    """The loss of Qwen3-Embedding, and the ads that it pushes away."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    query_terms: bool = True
    """Whether other queries of the batch are pushed away too."""
    ad_terms: bool = True
    """Whether the other ads are pushed away from a query's ad too."""
    both_ways: bool = False
    """Whether each ad must find its query among those of the batch too, with half of the weight."""
    false_negative_margin: Annotated[float, Field(ge=0)] | None = 0.1
    """What scores more than this above a query's own ad is taken for right and unjudged, and not pushed away."""
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    """A query, beside the other ads of the batch."""
    negatives_from: Literal["mined", "judged"] = "mined"
    """Mined: ads that score nearly as high as the right one. Judged: those that people found wrong, others by chance;
    costs no embedding of all ads before phase 1."""
    band: tuple[float, float] = (0.5, 0.95)
    """Mined negatives score between these shares of what the query's best ad scores: below they teach little, above
    they are often right and merely unjudged."""


class Teacher(Part):
    """Phase 1: one encoder for queries and ads."""

    model: str
    """Hub id, local directory, or `demo`."""
    pooling: Pooling | None = None
    """For a checkpoint that does not bring its own."""
    lora_rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of the low-rank updates that are trained instead of the weights."""
    matryoshka_dims: list[int] = []
    """Lengths at which a beginning of the embedding must be good by itself; all of it always must."""
    mini_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Texts whose activations are held at a time; the whole batch where not given."""
    title_queries: Annotated[float, Field(ge=0)] = 0
    """Queries made up of each ad's title, this many an ad, that phase 1 learns from once, beside the labelled ones.
    Their hard negatives are drawn by chance."""
    loss: Contrastive = Contrastive()
    optimisation: Optimisation


class Refinement(Part):
    """Phase 3: the student alone against the ads' fixed embeddings."""

    loss: Contrastive = Contrastive()
    anchor: Annotated[float, Field(ge=0)] = 0
    """Weight of the alignment loss beside the contrastive one."""
    rounds: Annotated[int, Field(ge=1)] = 2
    """Each mines its negatives anew: the first with the teacher, the others with the student; they share the epochs."""
    optimisation: Optimisation


class Student(Part):
    """Phase 2, and 3 where `refine` is set. Rungs of a ladder and arms of a comparison are students each."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    start: str
    """Name of an earlier student, `teacher`, or a checkpoint: hub id, local directory, `demo`."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """How many to keep; all where not given."""
    layer_rule: LayerRule = "keep_ends"
    ffn_width: Annotated[int, Field(ge=1)] | None = None
    """Inner units of each feed-forward block to keep."""
    pooling: Pooling | None = None
    """For a start that does not bring its own."""
    head: Literal["ridge", "random", "kept"] = "ridge"
    """How the dense head begins: fitted to the teacher by ridge regression, at random, or as the start has it."""
    objective: Objective = "l2"
    optimisation: Optimisation
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = -1
    """Least mean cosine to the teacher, on held-out queries, with which the next phase may go on."""
    refine: Refinement | None = None


class Joint(Part):
    """The arm without alignment: a query encoder learns together with an ad encoder that begins as the teacher does.

    Negatives are judged, or drawn by chance: none of the two can mine before it has learnt.
    """

    query_model: str
    """Hub id, local directory, or `demo`."""
    loss: Contrastive = Contrastive(negatives_from="judged")
    optimisation: Optimisation


class Serving(Part):
    """Which student is exported, and how."""

    student: str
    precision: Literal["fp32", "fp16", "int8"] = "int8"
    min_overlap: Annotated[float, Field(ge=0, le=1)] | None = None
    """As `hlm export --min-overlap`."""


class Recipe(Part):
    """Everything that decides what comes out."""

    seed: int = 1
    dim: Annotated[int, Field(ge=1)]
    """Of the embedding space: the teacher's embeddings are cut to this length."""
    query: Side
    ad: Side
    data: Data
    teacher: Teacher
    students: list[Student] = []
    joint: Joint | None = None
    serving: Serving | None = None
    evaluation_k: Annotated[int, Field(ge=1)] = 100
    """Cutoff of recall, of the deeper precision and of the overlap with the teacher."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        seen: list[str] = []
        for student in self.students:
            if student.name in seen or student.name == "teacher":
                raise ValueError(f"students: the name {student.name} is taken; expected each once")
            seen.append(student.name)
            later = {other.name for other in self.students} - set(seen)
            if student.start in later | {student.name}:
                raise ValueError(f"students: {student.name} starts from {student.start}, which must come before it")
        if self.serving is not None and self.serving.student not in seen:
            raise ValueError(f"serving: there is no student {self.serving.student}; expected one of {seen}")
        return self

    def student(self, name: str) -> Student:
        """The student of this name.

        Raises:
            TrainError: there is none.
        """
        for student in self.students:
            if student.name == name:
                return student
        names = [student.name for student in self.students]
        raise TrainError(f"no student is called {name}; expected one of {names}")


def find_recipe(name: str) -> Path:
    """Path of a recipe given by its path or, for those that are part of this program, by its name.

    Raises:
        TrainError: there is none.
    """
    for path in (Path(name), SHIPPED / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    raise TrainError(f"{name}: no such recipe; expected a YAML file or one of {shipped}")


@dataclass(frozen=True)
class Source:
    """A recipe as it is written."""

    path: Path
    document: dict[str, Any]
    """With all that its bases say."""
    bases: tuple[str, ...]
    """Names of the recipes that it is based on, the nearest first."""

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """What each arm of a sweep changes; empty for a single recipe."""
        return self.document.get("arms") or {}


def read_source(path: Path) -> Source:
    """Read a recipe's YAML and that of its bases.

    Raises:
        TrainError: one cannot be read, or a base is not there.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(document, dict) or "base" not in document:
        return Source(path, document, ())
    base = read_source(find_recipe(str(document.pop("base"))))
    if base.arms:
        raise TrainError(f"{path}: its base {base.path.stem} is a sweep; expected a single recipe")
    return Source(path, overlay(base.document, document), (base.path.stem, *base.bases))


def overlay(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A document with some changes: mappings are merged, everything else, lists too, is replaced."""
    merged = dict(document)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = overlay(merged[name], value) if both else value
    return merged


def recipe_of(source: Source, arm: str | None = None) -> Recipe:
    """The recipe that a source describes, or that of one of its arms.

    Raises:
        TrainError: a field is wrong, which the message names, or there is no such arm.
    """
    document = source.document
    if source.arms:
        if arm not in source.arms:
            raise TrainError(f"{source.path}: is a sweep; expected one of its arms {list(source.arms)}, not {arm}")
        document = overlay({name: part for name, part in document.items() if name != "arms"}, source.arms[arm] or {})
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "recipe"
        raise TrainError(f"{source.path}: not a valid recipe: {where}: {first['msg']}") from error


def load_recipe(path: Path) -> Recipe:
    """Read and validate a single recipe.

    Raises:
        TrainError: it cannot be read, or a field is wrong; the message names the field.
    """
    return recipe_of(read_source(path))
