"""Make a manifest of what shops have: an export of their products, or a folder of images."""

import difflib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lookalike import files
from lookalike.errors import ConfigInvalid, ManifestInvalid
from lookalike.feeds.addresses import ImageFolder
from lookalike.feeds.folder import Folder
from lookalike.feeds.google import GOOGLE
from lookalike.feeds.layout import FIELDS, Layout, Reading, Tally
from lookalike.feeds.magento import MAGENTO
from lookalike.feeds.open_export import open_export
from lookalike.feeds.plain import PLAIN
from lookalike.feeds.records import Columns, Export, fold
from lookalike.feeds.rows import read_rows
from lookalike.feeds.shopify import SHOPIFY
from lookalike.feeds.woocommerce import WOOCOMMERCE
from lookalike.feeds.write import Counts, write_manifest

LAYOUTS = {layout.name: layout for layout in (PLAIN, GOOGLE, SHOPIFY, WOOCOMMERCE, MAGENTO)}
_IMAGE_FIELDS = ("image", "uri", "more_images", "variant_image")
_CATEGORY_FIELDS = ("category", "taxonomy")


@dataclass(frozen=True)
class Options:
    """How to read an export; see `make_manifest --help`."""

    layout: str | None = None
    images: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    every_category: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a manifest holds, and what is to be told of how it was made."""

    counts: Counts
    notes: tuple[str, ...]


def make_from_export(source: str, out: str, options: Options = Options()) -> Outcome:
    """Write the manifest of the export at `source` to `out`, both paths or URIs, as Parquet.

    Raises ManifestInvalid naming all missing columns, or the first row that cannot be understood.
    """
    export = open_export(source, options.encoding)
    layout, how = _choose_layout(export, options.layout)
    columns = Columns(export.columns, layout.columns, options.columns)
    _check_columns(export, layout, columns, options.columns)
    reading = Reading(export, columns, _find_image_folder(source, options.images, layout), Tally())
    rows = read_rows(reading, layout, options.every_category)
    counts = write_manifest(out, rows, source, columns.has("updated_at"), layout.merges_images)
    return Outcome(counts, (*export.notes, how, *reading.tally.lines(), *counts.problems()))


def make_from_folder(folder: str, out: str) -> Outcome:
    """Write the manifest of the images below `folder` to `out`: the folders above a file are its category's path.

    Raises ManifestInvalid if there is no such folder, or no image in it.
    """
    images = Folder(folder)
    counts = write_manifest(out, images.read(), folder, is_dated=False)
    return Outcome(counts, (*images.notes(), *counts.problems()))


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Columns by field, of texts such as product_id=sku. Raises ConfigInvalid naming those that are not so."""
    wrong = [pair for pair in pairs if not all(pair.partition("="))]
    if wrong:
        raise ConfigInvalid(f"--column {', '.join(wrong)}: write it as FIELD=NAME, such as --column product_id=sku")
    return dict(pair.split("=", 1) for pair in pairs)


def _choose_layout(export: Export, name: str | None) -> tuple[Layout, str]:
    """The layout of this name, else the one whose columns the export has; and how it was chosen, in words."""
    if name:
        return LAYOUTS[name], f"{export.source}: {name} layout"
    present = {fold(column) for column in export.columns}
    known = [(layout, columns) for layout in LAYOUTS.values() for columns in layout.known_by if columns <= present]
    if not known or ({"product_id", "category"} <= present and {"image", "uri"} & present):
        return PLAIN, f"{export.source}: plain layout"
    layouts = sorted({layout.name for layout, _ in known})
    if len(layouts) > 1:
        raise ManifestInvalid(
            f"{export.source}: has columns of several layouts; say which it is: --layout {' or '.join(layouts)}"
        )
    layout, columns = known[0]
    return layout, f"{export.source}: {layout.name} layout, recognised by {', '.join(sorted(columns))}"


def _check_columns(export: Export, layout: Layout, columns: Columns, chosen: Mapping[str, str]) -> None:
    """Raise ManifestInvalid with everything that is missing, misspelt, or there twice."""
    problems = [*_find_misspelt(export, layout, chosen), *_find_missing(export, layout, columns, chosen)]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ManifestInvalid(
            f"{export.source}: the columns are not as they must be:\n{lines}\n"
            f"  the file has: {', '.join(export.columns)}; say which stands for what, such as --column product_id=NAME"
        )
    lists = {name for key in (*_IMAGE_FIELDS, *_CATEGORY_FIELDS) for name in columns.of(key) if layout is not PLAIN}
    read = {name for key in layout.columns for name in columns.of(key)} if layout is not PLAIN else {*export.columns}
    twice = [name for name in export.repeated if name in read - lists]
    if twice:
        raise ManifestInvalid(
            f"{export.source}: row 1: columns that stand there twice: {', '.join(twice)}; rename one of each"
        )


def _find_misspelt(export: Export, layout: Layout, chosen: Mapping[str, str]) -> Iterator[str]:
    present = {*export.columns, *map(fold, export.columns)}
    for key, name in chosen.items():
        if key not in FIELDS:
            yield f"{key}={name}: no field {key}{_suggest(key, FIELDS)}"
        elif key == "uri" and layout is not PLAIN:
            yield f"{key}={name}: the {layout.name} layout has one field for addresses and paths; write image={name}"
        if name not in present:
            yield f"{key}={name}: no column {name}{_suggest(name, export.columns)}"


def _find_missing(export: Export, layout: Layout, columns: Columns, chosen: Mapping[str, str]) -> Iterator[str]:
    for fields, meaning in (
        (("product_id",), "product_id: missing"),
        (_CATEGORY_FIELDS, "category: missing"),
        (_IMAGE_FIELDS, "image, uri: both missing; one says where the image is"),
    ):
        if not any(columns.has(key) or key in chosen for key in fields):
            usual = [name for key in fields for name in layout.columns.get(key, ())]
            hint = next(filter(None, (_suggest(name, export.columns) for name in usual)), "")
            yield f"{meaning}{hint}"


def _suggest(name: str, present: Sequence[str]) -> str:
    folded = {fold(column): column for column in present}
    close = difflib.get_close_matches(fold(name), list(folded), n=1)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def _find_image_folder(source: str, images: str | None, layout: Layout) -> ImageFolder:
    """The folder `images`; else the folder of that name beside the export, else the export's own."""
    if images is not None:
        fs, path = files.filesystem(files.absolute(images))
        if not fs.isdir(path):
            raise ManifestInvalid(f"{images}: no such folder; give the one that holds the images with --images")
        return ImageFolder(files.absolute(images), holds_all=True)
    beside = posixpath.dirname(files.absolute(source))
    fs, path = files.filesystem(files.join(beside, "images"))
    return ImageFolder(files.join(beside, "images") if fs.isdir(path) else beside, holds_all=layout is MAGENTO)
