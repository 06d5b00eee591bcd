"""Shops' exports: each layout, each way of writing a file, and what is told of rows that cannot be taken."""

import bz2
import gzip
import importlib
import json
import lzma
import re
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lookalike.errors import ManifestInvalid
from lookalike.feeds.addresses import ImageFolder
from lookalike.feeds.categories import ARROW, SLASH, choose, split_paths, to_path
from lookalike.feeds.make_manifest import Options, Outcome, make_from_export, make_from_folder

Rows = list[dict[str, Any]]
LIST = "image,product_id,category\n"


def take(source: Path, **options: Any) -> tuple[Rows, Outcome]:
    out = source.parent / "out" / "manifest.parquet"
    outcome = make_from_export(str(source), str(out), Options(**options))
    return [row | {"attributes": dict(row["attributes"])} for row in pq.read_table(out).to_pylist()], outcome


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(source: Path, **options: Any) -> str:
    with pytest.raises(ManifestInvalid) as caught:
        take(source, **options)
    assert not (source.parent / "out" / "manifest.parquet").exists()
    assert "\n" not in str(caught.value) or "the columns are not" in str(caught.value)
    return str(caught.value)


def names(rows: Rows) -> list[str]:
    return [row["uri"].rpartition("/")[2] for row in rows]


# Google


GOOGLE_HEAD = "id\ttitle\timage_link\tadditional_image_link\tavailability\tproduct_type\titem_group_id\tsize\n"


def test_google_variants_are_one_product_and_share_pictures(tmp_path: Path) -> None:
    """The picture of two sizes is one row: to be had if one is, with both sizes."""
    lines = [
        "A-S\tBlouse\thttps://c/a.jpg?w=9\thttps://c/b.jpg,https://c/high,low.jpg\tout of stock\tWomen > Tops\tA\tS",
        "A-M\tBlouse\thttps://c/a.jpg?w=9\t\tin_stock\tWomen > Tops\tA\tM",
        "B\tMug\t//c/m.webp\t\tpreorder\tHome > T-Shirts / Mugs\t\t",
    ]
    rows, outcome = take(write(tmp_path, "g.tsv", GOOGLE_HEAD + "\n".join(lines)))
    assert [(r["product_id"], r["uri"], r["available"], r["attributes"]) for r in rows] == [
        ("A", "https://c/a.jpg?w=9", True, {"size": "S|M", "id": "A-S|A-M"}),
        ("A", "https://c/b.jpg", False, {"size": "S", "id": "A-S"}),
        ("A", "https://c/high,low.jpg", False, {"size": "S", "id": "A-S"}),
        ("B", "https://c/m.webp", True, {}),
    ]
    assert [r["category"] for r in rows] == ["Women/Tops"] * 3 + ["Home/T-Shirts-Mugs"]
    assert len({r["image_id"] for r in rows}) == 4
    assert outcome.notes == (f"{tmp_path}/g.tsv: google layout, recognised by id, image_link",)


def test_rows_that_lack_something_are_counted_by_cause(tmp_path: Path) -> None:
    lines = [
        "A\t\t\t\t\tWomen\t\t",
        "\tNo id\thttps://c/1.jpg\t\t\tWomen\t\t",
        "C\t\thttps://c/2.jpg\t\t\t\t\t",
        "D\t\tno_selection\t\t\t\t\t",
        "E\t\thttps://c/3.jpg\t\tsoon\tWomen\t\t",
        "",
        "\t\t\t\t\t\t\t",
    ]
    rows, outcome = take(write(tmp_path, "g.tsv", GOOGLE_HEAD + "\n".join(lines)))
    assert [(r["product_id"], r["category"]) for r in rows] == [(None, "Women"), ("C", None), ("E", "Women")]
    assert outcome.notes[1:] == (
        "2 rows have no image and were left out, such as A (row 2), D (row 5)",
        "1 rows have no product_id and will be rejected, such as No id (row 3)",
        "1 rows have no category and will be rejected, such as C (row 4)",
        "1 rows say 'soon' of their availability, which is not known, and count as available, such as row 6",
    )


@pytest.mark.parametrize(
    ("cell", "taxonomy", "category"),
    [
        ("Hair Accessories > Hair Pins, Claws & Clips > Combs", "", "Hair Accessories/Hair Pins, Claws & Clips/Combs"),
        ("Home > A, Home > B", "", "Home/A"),
        ("Women &gt; Tops &amp; more", "", "Women/Tops & more"),
        ("", "212", None),
        ("", "Apparel & Accessories > Clothing", "Apparel & Accessories/Clothing"),
    ],
)
def test_google_categories(tmp_path: Path, cell: str, taxonomy: str, category: str | None) -> None:
    text = f"id\timage link\tproduct type\tgoogle product category\n1\thttps://c/1.jpg\t{cell}\t{taxonomy}\n"
    assert take(write(tmp_path, "g.tsv", text))[0][0]["category"] == category


RSS = """<?xml version="1.0"?><rss xmlns:{p}="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item><title>Mug &amp; cup</title><id>tag:shop,7</id><{p}:id>7</{p}:id>
<{p}:image_link>https://c/7.jpg?a=1&amp;b=2</{p}:image_link>
<{p}:additional_image_link>https://c/8.jpg</{p}:additional_image_link>
<{p}:additional_image_link><![CDATA[//c/9.jpg]]></{p}:additional_image_link>
<{p}:shipping><{p}:id>x</{p}:id></{p}:shipping>
<{p}:product_type>Home &gt; Mugs</{p}:product_type></item></channel></rss>"""


@pytest.mark.parametrize("prefix", ["g", "base"])
def test_google_xml_as_rss_and_atom(tmp_path: Path, prefix: str) -> None:
    rss = RSS.format(p=prefix)
    atom = rss.replace("<item>", "<entry>").replace("</item>", "</entry>").replace("channel", "feed")
    for text in (rss, atom, re.sub(r' xmlns:\w+="[^"]+"', "", rss), f"\n\n{rss}"):
        rows, _ = take(write(tmp_path, "feed.xml", text))
        assert [r["uri"] for r in rows] == ["https://c/7.jpg?a=1&b=2", "https://c/8.jpg", "https://c/9.jpg"]
        assert {(r["product_id"], r["category"], r["title"]) for r in rows} == {("7", "Home/Mugs", "Mug & cup")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("<rss", '<!DOCTYPE r [<!ENTITY a "aaa">]><rss'), "declares entities"),
        (("<rss", '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss'), "declares entities"),
        (("&amp;b", "&b"), "item 1: not well-formed"),
        (("Mug &amp; cup", "Mug&nbsp;cup"), "item 1: undefined entity"),
        (("</channel></rss>", ""), "cut off"),
        (('version="1.0"', 'version="1.0" encoding="gb2312"'), "item 1"),
        (("item>", "product>"), "without <item> or <entry>"),
    ],
)
def test_xml_that_is_not_read(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert said in refusal(write(tmp_path, "feed.xml", RSS.format(p="g").replace(*change)))


# Shopify


def shopify(rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    header = {name: name for name in columns}
    return "\n".join(",".join(f'"{row.get(name, "")}"' for name in columns) for row in [header, *rows])


BLOUSE = [
    {"Handle": "b", "Title": "Blouse", "Type": "Tops", "Published": "TRUE", "Option1 Name": "Color"}
    | {"Option1 Value": "Red", "Variant SKU": "r", "Image Src": "https://c/red.jpg?v=1", "Status": "active"}
    | {"Variant Image": "https://c/red.jpg?v=1", "Product Category": "Uncategorized"},
    {"Handle": "b", "Option1 Value": "Blue", "Variant SKU": "u", "Image Src": "https://c/detail.jpg?v=2"}
    | {"Variant Image": "https://c/blue.jpg?v=3"},
    {"Handle": "b", "Option1 Value": "Green", "Variant SKU": "g"},
    {"Handle": "b", "Image Src": "https://c/blue.jpg?v=3"},
]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_shopify_rows_inherit_in_any_order(tmp_path: Path, order: list[int]) -> None:
    rows, outcome = take(write(tmp_path, "s.csv", shopify([BLOUSE[i] for i in order])))
    assert {(r["product_id"], r["title"], r["category"], r["available"]) for r in rows} == {
        ("b", "Blouse", "Tops", True)
    }
    assert {r["image_id"]: r["attributes"] for r in rows} == {
        "b/red.jpg": {"Color": "Red", "sku": "r"},
        "b/blue.jpg": {"Color": "Blue", "sku": "u"},
        "b/detail.jpg": {},
    }
    assert len(rows) == 3
    assert [note.partition(",")[0] for note in outcome.notes[1:]] == ["1 rows have no image of their own"]


def test_shopify_new_column_names_and_rows_without_a_handle(tmp_path: Path) -> None:
    new = {"Handle": "URL handle", "Image Src": "Product image URL", "Variant Image": "Variant image URL"}
    new |= {"Variant SKU": "SKU", "Published": "Published on online store", "Option1 Name": "Option1 name"}
    new |= {"Option1 Value": "Option1 value", "Product Category": "Product category"}
    rows = [
        {new.get(name, name): text for name, text in row.items() if not (i and name == "Handle")}
        for i, row in enumerate(BLOUSE)
    ]
    result, _ = take(write(tmp_path, "s.csv", shopify(rows)))
    assert {r["product_id"] for r in result} == {"b"}
    assert sorted(r["image_id"] for r in result) == ["b/blue.jpg", "b/detail.jpg", "b/red.jpg"]


def test_variants_far_apart_share_pictures_too(tmp_path: Path) -> None:
    """And pictures of other hosts do not: they are told, as one of them will be rejected."""
    lines = [f"A-{i}\tBlouse\thttps://c/a.jpg\t\t{'in' if i == 2 else 'out of'} stock\tW\tA\t{i}" for i in range(3)]
    others = [f"B{i}\tMug\thttps://c/{i}.jpg\t\t\tW\t\t" for i in range(3)] + ["A-9\t\thttps://d/a.jpg\t\t\tW\tA\t9"]
    text = GOOGLE_HEAD + "\n".join(line for pair in zip(lines, others, strict=False) for line in pair)
    rows, outcome = take(write(tmp_path, "g.tsv", text))
    merged = [(r["available"], r["attributes"]) for r in rows if r["product_id"] == "A"]
    assert merged == [(True, {"size": "0|1|2", "id": "A-0|A-1|A-2"})]
    assert (len(rows), outcome.counts.images, outcome.notes[1:]) == (4, 4, ())
    rows, outcome = take(write(tmp_path, "g.tsv", f"{text}\n{others[3]}"))
    assert outcome.notes[1].startswith("1 rows repeat an image_id, such as A/a.jpg, and will be rejected")
    assert not list((tmp_path / "out").glob("*.tmp*"))


@pytest.mark.parametrize(
    ("said", "available"),
    [
        ({}, True),
        ({"Status": "draft"}, False),
        ({"Status": "archived"}, False),
        ({"Published": "false"}, False),
        (
            {"Variant Inventory Tracker": "shopify", "Variant Inventory Qty": "0", "Variant Inventory Policy": "deny"},
            False,
        ),
        (
            {
                "Variant Inventory Tracker": "shopify",
                "Variant Inventory Qty": "-1",
                "Variant Inventory Policy": "continue",
            },
            True,
        ),
        ({"Variant Inventory Qty": "0"}, True),
    ],
)
def test_shopify_availability(tmp_path: Path, said: dict[str, str], available: bool) -> None:
    row = {"Handle": "v", "Title": "Vase", "Type": "Vases", "Variant SKU": "1", "Image Src": "https://c/v.jpg"}
    assert take(write(tmp_path, "s.csv", shopify([row | said])))[0][0]["available"] is available


# WooCommerce


WOO = "ID,Type,SKU,Name,Published,In stock?,Categories,Images,Parent,Attribute 1 name,Attribute 1 value(s)\n"


def test_woocommerce_variations_belong_to_their_parent(tmp_path: Path) -> None:
    """By SKU or id, before or after it."""
    lines = [
        "45,variation,L-R,Blouse - Red,1,1,,https://c/red.jpg,L,Color,Red",
        '44,variable,L,Blouse,1,1,"Women, Women > Tops > Blouses, Sale","https://c/f.jpg, https://c/b.jpg",'
        ',Color,"Red, Blue"',
        "46,variation,,Blouse - Blue,1,0,,https://c/blue.jpg,id:44,Color,Blue",
        "47,variation,,Blouse - Green,1,1,,,id:44,Color,Green",
        r'51,"simple, virtual",,Mug,-1,1,"Home > Gifts\, small","https://c/1\,2.jpg",,,',
        "60,variation,X,Orphan,1,1,,https://c/o.jpg,id:99,,",
    ]
    rows, outcome = take(write(tmp_path, "w.csv", "\ufeff" + WOO + "\n".join(lines)))
    assert [(r["product_id"], r["category"], r["available"], names([r])[0]) for r in rows] == [
        ("L", "Women/Tops/Blouses", True, "red.jpg"),
        ("L", "Women/Tops/Blouses", True, "f.jpg"),
        ("L", "Women/Tops/Blouses", True, "b.jpg"),
        ("L", "Women/Tops/Blouses", False, "blue.jpg"),
        ("id:51", "Home/Gifts, small", False, "1,2.jpg"),
        ("id:99", None, True, "o.jpg"),
    ]
    assert rows[0]["title"] == "Blouse"
    assert [r["attributes"] for r in rows[:2]] == [{"Color": "Red", "sku": "L-R"}, {"Color": "Red|Blue"}]
    assert [re.split(", (?=such|of which|as)", note)[0] for note in outcome.notes[1:]] == [
        "3 rows are in several categories",
        "1 rows have no image of their own",
        "1 rows are variations of a product that is not in the file",
        "1 rows have no category and will be rejected",
    ]


def test_all_categories(tmp_path: Path) -> None:
    line = '44,simple,L,Blouse,1,1,"Women, Women > Tops, Sale",https://c/f.jpg,,,'
    rows, outcome = take(write(tmp_path, "w.csv", WOO + line), every_category=True)
    assert [(r["image_id"], r["category"]) for r in rows] == [("L/f.jpg", "Women/Tops"), ("L/f.jpg@Sale", "Sale")]
    assert len(outcome.notes) == 1


@pytest.mark.parametrize(
    ("paths", "deepest", "every"),
    [
        ([], [], []),
        (["a"], ["a"], ["a"]),
        (["a", "a/b/c", "a/b", "z/y/x/w"], ["a/b/c"], ["a/b/c", "z/y/x/w"]),
        (["sale", "sales/x", "a/b"], ["sale"], ["sale", "sales/x", "a/b"]),
        (["a/b", "a/b", ""], ["a/b"], ["a/b"]),
    ],
)
def test_choice_of_categories(paths: list[str], deepest: list[str], every: list[str]) -> None:
    assert choose(paths, every=False) == deepest
    assert choose(paths, every=True) == every


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("Default Category,Default Category/Women", ["Default Category", "Default Category/Women"]),
        ("Default Category/A|Default Category/B, C", ["Default Category/A", "Default Category/B, C"]),
        ("Default Category/A,Brands/B", ["Default Category/A", "Brands/B"]),
        ("A > B; C > D | E > F, G > H", ["A > B", "C > D", "E > F", "G > H"]),
        ("A > B, C, D > E", ["A > B, C", "D > E"]),
        ("Baby & Toddler, Toys > A, Books > B", ["Baby & Toddler, Toys > A", "Books > B"]),
        ("H > Pins, Claws & Clips > Combs, Home > A", ["H > Pins, Claws & Clips > Combs", "Home > A"]),
        ("Shirts, Blouses/Silk", ["Shirts, Blouses/Silk"]),
        ("Home > A (x), Home > A (x)", ["Home > A (x)", "Home > A (x)"]),
        ("", [""]),
    ],
)
def test_a_cell_of_several_categories(cell: str, parts: list[str]) -> None:
    assert split_paths(cell, ARROW if ">" in cell else SLASH) == parts


SEVERAL = "are in several categories, of which the deepest of the first was taken"


@pytest.mark.parametrize(
    ("name", "text", "first", "every", "told"),
    [
        ("m.csv", 'sku,base_image,categories\n1,a.jpg,"Default Category/A,Brands/B"\n', "A", "Brands/B", SEVERAL),
        ("m.csv", "sku,base_image,categories\n1,a.jpg,Default Category/A &amp; C/B\n", "A & C/B", "A & C/B", ""),
        ("g.tsv", "id\timage_link\tproduct_type\n1\ta.jpg\tHome > A, Garden > B\n", "Home/A", "Garden/B", SEVERAL),
        ("g.tsv", "id\timage_link\tproduct_type\n1\ta.jpg\tHome > A, B & C > D", "Home/A, B & C/D", None, "a comma"),
        ("l.csv", f'{LIST}a.jpg,1,"Women > Tops, Sale > New"\n', "Women/Tops", "Sale/New", SEVERAL),
        ("l.csv", f'{LIST}a.jpg,1,"Tops, wide"\n', "Tops, wide", "Tops, wide", ""),
        ("l.jsonl", '{"product_id": "1", "image": "a.jpg", "category": ["A", "B"]}', "A", "B", SEVERAL),
    ],
)
def test_categories_of_different_roots(
    tmp_path: Path, name: str, text: str, first: str, every: str | None, told: str
) -> None:
    source = write(tmp_path, name, text.replace("a.jpg", "https://c/a.jpg"))
    rows, outcome = take(source)
    assert [r["category"] for r in rows] == [first]
    assert told in "".join(outcome.notes[1:]) and bool(told) == bool(outcome.notes[1:])
    assert [r["category"] for r in take(source, every_category=True)[0]] == list(dict.fromkeys([first, every or first]))


def test_paths_of_categories() -> None:
    assert [to_path(t) for t in ("A>B \u203a C", "A / B", r"A\/B/C", " > A > .. > ", "A/B > C")] == [
        "A/B/C", "A/B", "A-B/C", "A", "A-B/C",
    ]  # fmt: skip


# Magento


MAGENTO = (
    "sku,store_view_code,categories,name,product_online,visibility,base_image,small_image,additional_images,"
    "hide_from_product_page,is_in_stock,additional_attributes,configurable_variations\n"
)
VISIBLE, ALONE = '"Catalog, Search"', "Not Visible Individually"


def test_magento(tmp_path: Path) -> None:
    media = tmp_path / "media"
    for name in ("w/p/red.jpg", "w/p/back.jpg", "wpflat.jpg"):
        (media / name).parent.mkdir(parents=True, exist_ok=True)
        (media / name).write_bytes(b"x")
    lines = [
        f'B,,"Default Category/W,Default Category/W/Pants",Blue,1,{VISIBLE},/w/p/red.jpg,,'
        '"/w/p/red.jpg,/w/p/back.jpg,/w/p/h.jpg",/w/p/h.jpg,1,"color=Blue,note=a, b,material=Lycra|Wool",',
        "B,de,,Blau,,,,,,,,,",
        f"R,,,Red,1,{ALONE},no_selection,/w/p/wpflat.jpg,,,0,,",
        f'C,,Default Category/W,Capri,1,{VISIBLE},no_selection,,,,,,"sku=B,color=Blue|sku=R,color=Red"',
        f"O,,Default Category/W,Off,2,{VISIBLE},https://c/o.jpg,,,,1,,",
        f"L,,Default Category/W,Lost,1,{ALONE},https://c/l.jpg,,,,1,,",
    ]
    rows, outcome = take(write(tmp_path, "m.csv", MAGENTO + "\n".join(lines)), images=str(media))
    assert [(r["product_id"], r["category"], r["title"], r["available"], r["uri"]) for r in rows] == [
        ("B", "W/Pants", "Blue", True, f"file://{media}/w/p/red.jpg"),
        ("B", "W/Pants", "Blue", True, f"file://{media}/w/p/back.jpg"),
        ("C", "W", "Capri", False, f"file://{media}/wpflat.jpg"),
        ("O", "W", "Off", False, "https://c/o.jpg"),
        ("L", "W", "Lost", False, "https://c/l.jpg"),
    ]
    assert rows[0]["attributes"] == {"color": "Blue", "note": "a, b", "material": "Lycra|Wool"}
    assert rows[2]["attributes"] == {"sku": "R"}
    assert [note.partition(", such as ")[::2] for note in outcome.notes[1:]] == [
        ("1 rows are of another store view and were left out", "B (row 3)"),
        ("1 rows have no image of their own, as other rows of their product do", "C (row 5)"),
        ("1 rows are not visible individually and count as not available", "L (row 7)"),
    ]


def test_magento_paths_are_below_the_folder_even_if_nothing_is_there(tmp_path: Path) -> None:
    row = f"B,,W,Blue,1,{VISIBLE},/w/p/x.jpg,,,,1,,"
    rows, outcome = take(write(tmp_path, "m.csv", MAGENTO + row))
    assert rows[0]["uri"] == f"file://{tmp_path}/w/p/x.jpg"
    assert outcome.notes[-1].startswith("1 rows will be rejected, as their file is not there")


# Cells


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    for name in (
        "a.jpg",
        "one, two.jpg",
        "x.jpg,y.jpg",
        "IMG1",
        "IMG2",
        "sub/b.jpg",
        unicodedata.normalize("NFD", "ö.jpg"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return ImageFolder(f"file://{tmp_path}", holds_all=False)


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg,b.PNG;c.jfif|d.webp\ne.gif", ["a.jpg", "b.PNG", "c.jfif", "d.webp", "e.gif"]),
        ("a.jpg, b.jpg,", ["a.jpg", "b.jpg"]),
        ("red, blue.jpg", ["red, blue.jpg"]),
        ("one, two.jpg, a.jpg", ["one, two.jpg", "a.jpg"]),
        ("x.jpg,y.jpg", ["x.jpg,y.jpg"]),
        ("IMG1,IMG2", ["IMG1", "IMG2"]),
        ("https://c/1.jpg,https://c/2", ["https://c/1.jpg", "https://c/2"]),
        ("https://c/1.jpg https://c/2.jpg", ["https://c/1.jpg", "https://c/2.jpg"]),
        ("https://c/1 | //c/2", ["https://c/1", "//c/2"]),
        ("https://c/123_High_Street,_London.jpg", ["https://c/123_High_Street,_London.jpg"]),
        ("https://c/a.jpg,medium.jpg", ["https://c/a.jpg,medium.jpg"]),
        ("https://c/w_300,h_300/x.jpg, https://c/y.jpg", ["https://c/w_300,h_300/x.jpg", "https://c/y.jpg"]),
        ("https://c/x.jpg?size=1,2;https://c/y.jpg", ["https://c/x.jpg?size=1,2", "https://c/y.jpg"]),
        ("/w/b/x.jpg,/w/b/y.jpg", ["/w/b/x.jpg", "/w/b/y.jpg"]),
        ("s3://b/x.jpg;file:/y.jpg", ["s3://b/x.jpg", "file:/y.jpg"]),
        ("no_selection,a.jpg", ["a.jpg"]),
        (" N/A ", []),
        ("null", []),
        (r'["https:\/\/c/a.jpg","https://c/b.jpg",""]', ["https://c/a.jpg", "https://c/b.jpg"]),
        ("[]", []),
        ("[1] a.jpg", ["[1] a.jpg"]),
        ("a.jpg ! title : x, y ! caption : , https://c/b.jpg", ["a.jpg", "https://c/b.jpg"]),
        ("<IMG SRC='/sub/a b.jpg' >", ["/sub/a b.jpg"]),
        ("a <b.jpg", ["a <b.jpg"]),
        ("a !b: c.jpg", ["a !b: c.jpg"]),
        ("a.jpg ! alt : x, y ! title : z | b.jpg ! alt : ", ["a.jpg", "b.jpg"]),
        ('<p><img alt="x" src="https://c/a.jpg?a=1&amp;b=2"/></p>', ["https://c/a.jpg?a=1&b=2"]),
        ("/no_selection,/w/b/x.jpg", ["/w/b/x.jpg"]),
        ("no-image | noimage | not_selected | Not available | #REF! | \u2013 | \u2014 | ---", []),
        ("no-image.jpg", ["no-image.jpg"]),
        ("a\r\nb", ["a", "b"]),
    ],
)
def test_addresses_in_a_cell(folder: ImageFolder, cell: str, parts: list[str]) -> None:
    assert folder.split_cell(cell) == parts


def test_uris_of_paths(folder: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "abs.jpg").write_bytes(b"x")
    expected = {
        "/sub/b.jpg": f"file://{tmp_path}/sub/b.jpg",  # below the folder first
        f"{tmp_path}/abs.jpg": f"file://{tmp_path}/abs.jpg",
        "/no/where.jpg": "file:///no/where.jpg",
        r"sub\b.jpg": f"file://{tmp_path}/sub/b.jpg",
        "ö.jpg": f"file://{tmp_path}/{unicodedata.normalize('NFD', 'ö.jpg')}",
        "//c/x.jpg": "https://c/x.jpg",
        "\u200bHTTPS:\\\\c\\x.jpg": "https://c\\x.jpg",  # cleaned as the pipeline cleans its input
        "FILE://localhost/data/x.jpg": "file:///data/x.jpg",
        "x" * 5000: f"file://{tmp_path}/{'x' * 5000}",
    }
    assert {address: folder.to_uri(address) for address in expected} == expected
    assert ImageFolder(folder.uri, holds_all=True).to_uri("/no/where.jpg") == f"file://{tmp_path}/no/where.jpg"
    assert ImageFolder("s3://shop/media", holds_all=True).to_uri("/w/b/x.jpg") == "s3://shop/media/w/b/x.jpg"


def test_cells_that_hold_no_address_are_told(tmp_path: Path) -> None:
    cells = ["data:image/png;base64,iVBORw0KGgo=", "<img src=a.jpg> <img src=b.jpg>", "<b>none</b>", "https://c/1.jpg"]
    rows, outcome = take(
        write(tmp_path, "l.tsv", "image\tproduct_id\tcategory\n" + "".join(f"{c}\tp\tc\n" for c in cells))
    )
    assert names(rows) == ["1.jpg"]
    assert [note.partition(",")[0] for note in outcome.notes[1:]] == [
        "3 rows have HTML or data: in place of an image's address",
        "3 rows have no image and were left out",
    ]


def test_image_ids_stay_when_what_is_around_them_changes(tmp_path: Path) -> None:
    """Host, query and order are not part of them, unless the query says which picture it is."""
    first = "1\thttps://c/p/a.jpg?v=1\thttps://c/p/b.jpg,https://c/i.php?id=7,https://c/i.php?id=8\t\tW\t\t"
    second = "1\thttps://d/p/b.jpg\thttps://d/i.php?id=8,https://d/p/a.jpg?v=2,https://d/i.php?id=7\t\tW\t\t"
    head = "id\timage_link\tadditional_image_link\tavailability\tproduct_type\titem_group_id\tsize\n"
    ids = [{r["image_id"] for r in take(write(tmp_path, "g.tsv", head + line))[0]} for line in (first, second)]
    assert ids[0] == ids[1] == {"1/p/a.jpg", "1/p/b.jpg", "1/i.php?id=7", "1/i.php?id=8"}


def test_several_images_of_a_plain_row(tmp_path: Path) -> None:
    text = 'image_id,image,product_id,category\nk,"a.jpg,b.jpg",p,c\n,"c.jpg|d.jpg",p,c\n'
    assert [r["image_id"] for r in take(write(tmp_path, "l.csv", text))[0]] == ["k", "k/2", "c.jpg", "d.jpg"]


def test_a_plain_row_may_say_that_an_image_is_gone(tmp_path: Path) -> None:
    rows, _ = take(
        write(tmp_path, "l.csv", "image_id,image,product_id,category,deleted\nk,,p,c,yes\n,,p,c,yes\nx,a.jpg,p,c,\n")
    )
    assert [(r["image_id"], r["uri"] is None, r["deleted"]) for r in rows] == [("k", True, True), ("x", False, None)]


# Files


ROWS = "a.jpg,p-é,c\nb.jpg,p2,c\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_separators_and_line_ends(tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    for first in ("", f"sep={separator}\n"):
        text = (first + LIST + ROWS).replace(",", separator).replace("\n", end)
        rows, outcome = take(write(tmp_path, "l.csv", text.encode(encoding)))
        assert [r["product_id"] for r in rows] == ["p-é", "p2"]
        assert [note for note in outcome.notes if "--encoding" in note] == (
            [f"{tmp_path}/l.csv is not UTF-8 and was read as cp1252; if letters are wrong, name it with --encoding"]
            if encoding == "cp1252"
            else []
        )


def test_an_encoding_that_is_named(tmp_path: Path) -> None:
    source = write(tmp_path, "l.csv", (LIST + "a.jpg,łódź,c\n").encode("cp1250"))
    assert "--encoding klingon: not known" in refusal(source, encoding="klingon")
    assert "not utf-8-sig" in refusal(source, encoding="utf-8")
    assert take(source, encoding="windows-1250")[0][0]["product_id"] == "łódź"


def pack_zip(tmp_path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(tmp_path / "l.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return tmp_path / "l.zip"


def test_packed_files_are_known_by_content(tmp_path: Path) -> None:
    text = (LIST + ROWS).encode()
    packed = [write(tmp_path, f"{p.__name__}.csv", p.compress(text)) for p in (gzip, bz2, lzma)]
    zipped = pack_zip(tmp_path, {"x/": b"", "x/l.csv": text, "__MACOSX/x/._l.csv": b"?", "x/.DS_Store": b"?"})
    xml = write(tmp_path, "feed.xml.gz", gzip.compress(RSS.format(p="g").encode()))
    assert [len(take(source)[0]) for source in (*packed, zipped, xml)] == [2, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"a" * 5000, mtime=0)[:20], "cut off or damaged"),
        (gzip.compress((LIST + ROWS).encode(), mtime=0)[:-12], "cut off or damaged"),
        (b"PAR1xxxx", "is Parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook"),
        (b"\x28\xb5\x2f\xfdxxxx", "packed with zstd"),
        (b"PK\3\4xxxx", "cut off or damaged"),
        (b"\x00\x01\x02\x03" * 9, "not text"),
        (b"  <!DOCTYPE html><html>", "a web page"),
        (b'[{"a": 1}]', "a JSON array"),
        (b"\n\n", "the file is empty"),
        (LIST.encode() + b"a.jpg,p,c\nb.jpg,p", "row 3: 2 values, but the header has 3"),
    ],
)
def test_files_that_are_not_read(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(write(tmp_path, "l.csv", content))


def test_archives_that_are_not_read(tmp_path: Path) -> None:
    assert "holds 2 files (a.csv, b.csv)" in refusal(pack_zip(tmp_path, {"a.csv": b"", "b.csv": b""}))
    assert "is an Excel workbook" in refusal(pack_zip(tmp_path, {"[Content_Types].xml": b"", "xl/a.xml": b""}))


def test_a_compression_that_is_not_read(tmp_path: Path) -> None:
    source = pack_zip(tmp_path, {"a.csv": (LIST + ROWS).encode()})
    local, central = b"PK\3\4\x14\0\0\0", b"PK\1\2\x14\3\x14\0\0\0"
    content = source.read_bytes()
    assert local + b"\x08" in content and central + b"\x08" in content
    source.write_bytes(content.replace(local + b"\x08", local + b"\x09").replace(central + b"\x08", central + b"\x09"))
    assert "is packed in a way that is not read" in refusal(source)


def test_json_lines(tmp_path: Path) -> None:
    """Numbers stay as they are written; a list holds several images; a key may come late."""
    records = [
        '{"product_id": 12345678901234567890, "category": "c", "image": ["a.jpg", "b.jpg"], "price": 12.50}',
        "",
        '{"product_id": "p", "category": "c", "image": "c.jpg", "attributes": {"a": 1, "b": null}, "available": false}',
        '{"product_id": "p", "category": "c", "image": null, "tags": ["x", "y"]}',
    ]
    rows, outcome = take(write(tmp_path, "l.jsonl", "\n".join(records)))
    assert [(r["product_id"], r["image_id"], r["available"]) for r in rows] == [
        ("12345678901234567890", "a.jpg", None),
        ("12345678901234567890", "b.jpg", None),
        ("p", "c.jpg", False),
    ]
    assert [r["attributes"] for r in rows] == [{"price": "12.50"}, {"price": "12.50"}, {"a": "1"}]
    assert outcome.notes[1] == "1 rows have no image and were left out, such as p (line 4)"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"product_id": "p"', "line 2: not JSON"),
        ("[1]", "line 2: not an object"),
        ('{"image": [{"src": "a"}]}', "line 2: image holds objects"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_json_lines_that_are_not_read(tmp_path: Path, line: str, said: str) -> None:
    good = json.dumps({"product_id": "p", "category": "c", "image": "a.jpg"})
    assert said in refusal(write(tmp_path, "l.jsonl", f"{good}\n{line}\n"))


def test_dates_that_mean_none(tmp_path: Path) -> None:
    dates = ["0001-01-01T00:00:00+01:00", "0000-00-00 00:00:00", "9999-12-31", "1900-01-00", "2024-05-31"]
    text = "image,product_id,category,updated_at\n" + "".join(f"{i}.jpg,p,c,{d}\n" for i, d in enumerate(dates))
    rows, outcome = take(write(tmp_path, "l.csv", text))
    assert [r["updated_at"] is None for r in rows] == [True] * 4 + [False]
    assert outcome.notes[1].startswith("4 rows have a date before 1970 or after 2200, which counts as unknown")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cells_that_excel_keeps_as_text(tmp_path: Path, separator: str) -> None:
    """And ids that it did not keep: they are told, as several long numbers may have become one."""
    text = 'image,product_id,="category"\n="https://c/1.jpg",="00123",c\n="https://c/2.jpg","=""4 """"x""""""",c\n'
    rows, outcome = take(write(tmp_path, "l.csv", f"{text}https://c/3.jpg,1.23457E+12,c\n".replace(",", separator)))
    products = ["00123", '4 "x"', "1.23457E+12"]
    assert [(r["product_id"], r["uri"]) for r in rows] == [(p, f"https://c/{n}.jpg") for n, p in enumerate(products, 1)]
    assert [note.partition(";")[0] for note in outcome.notes[1:]] == [
        "1 rows have an id that a spreadsheet made of a longer number"
    ]
    assert outcome.notes[1].endswith("such as 1.23457E+12 (row 4)")


def test_thousands_of_columns_and_odd_headers(tmp_path: Path) -> None:
    """Columns without a name, and cells beyond the last one, are left out if they are blank."""
    extra = ",".join(f"attribute {i}" for i in range(5_000))
    values = ",".join(str(i) for i in range(5_000))
    text = f"Image, Product ID ,CATEGORY,{extra},,\na.jpg,p,Women > Tops,{values},,,,\n"
    rows, _ = take(write(tmp_path, "l.csv", text))
    assert rows[0]["attributes"] == {f"attribute {i}": str(i) for i in range(5_000)}
    assert (rows[0]["product_id"], rows[0]["category"]) == ("p", "Women/Tops")


def test_lines_above_the_header(tmp_path: Path) -> None:
    text = f'\n"# Required, as a path","# Required"\n{LIST}# a.jpg,p,c\n'
    assert [r["image_id"] for r in take(write(tmp_path, "l.csv", text))[0]] == ["# a.jpg"]


def test_long_cells_and_quotes_within_lines(tmp_path: Path) -> None:
    long = "x" * 200_000
    text = f'image,product_id,category,note\na.jpg,p,c,"{long}\n""q"""\nb.jpg,p,c,24" wide\n'
    assert [r["attributes"]["note"] for r in take(write(tmp_path, "l.csv", text))[0]] == [f'{long}\n"q"', '24" wide']


@pytest.mark.parametrize(
    ("lines", "titles"),
    [
        (['1\t"Foo\t1.jpg\tA', '2\t"Bar\t2.jpg\tA'], ['"Foo', '"Bar']),
        (['1\t"Foo\t1.jpg\tA', '2\tBar"\t2.jpg\tA'], ['"Foo', 'Bar"']),
        (['1\tFoo\t1.jpg\t"A', "2\tBar\t2.jpg\tA"], ["Foo", "Bar"]),
        (['1\t"Foo\t1.jpg\tA', "2\tBar\t2.jpg\tA"], ['"Foo', "Bar"]),
        (['1\t"Foo" Bar\t1.jpg\tA', '2\t24" wide\t2.jpg\tA'], ['"Foo" Bar', '24" wide']),
        (['1\t"Foo ""x"""\t1.jpg\tA', '"2"\t""\t2.jpg\tA'], ['Foo "x"', None]),
        (['1\t"Foo\tB', 'C"\t1.jpg\t"A"', "2\tBar\t2.jpg\tA"], ["Foo\tB\nC", "Bar"]),
        (['1\t"Foo', 'Bar"\t1.jpg\t"A\tB\tC"', "2\tBar\t2.jpg\tA"], ["Foo\nBar", "Bar"]),
        (['1\t"Foo\tBar"\t"1.jpg', '"\tA', "2\tBar\t2.jpg\tA"], ["Foo\tBar", "Bar"]),
        (['1\t"Foo\tBar"\t1.jpg\tA', "", "2\tBar\t2.jpg\tA"], ["Foo\tBar", "Bar"]),
        (["1\tFoo\t1.jpg\tA", '2\tBar\t2.jpg\t"A', 'B"'], ["Foo", "Bar"]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_in_tsv(tmp_path: Path, lines: list[str], titles: list[str | None], end: str) -> None:
    """They quote a whole cell or are plain text: no row is taken for a part of another."""
    text = end.join(["id\ttitle\timage_link\tproduct_type", *lines])
    rows, _ = take(write(tmp_path, "g.tsv", text))
    assert [(r["product_id"], r["uri"].rpartition("/")[2]) for r in rows] == [("1", "1.jpg"), ("2", "2.jpg")]
    assert [r["title"] for r in rows] == [title and title.replace("\n", end) for title in titles]


@pytest.mark.parametrize(
    "lines", [['1\t"Foo\t1.jpg', '2\tBar"\t2.jpg\tA'], ['1\t"Foo\t1.jpg\tA', "2", '3\tB"\t3.jpg\tA']]
)
def test_quotes_in_tsv_hide_no_row_that_is_cut_off(tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join(["id\ttitle\timage_link\tproduct_type", *lines])
    assert "the header has 4" in refusal(write(tmp_path, "g.tsv", text))


# Layouts


def test_a_layout_is_named_or_recognised(tmp_path: Path) -> None:
    german = "Typ,Artikelnummer,Kategorien,Bilder\nsimple,L,A > B,https://c/x.jpg\n"
    columns = {"product_id": "Artikelnummer", "category": "Kategorien", "image": "Bilder"}
    rows, outcome = take(write(tmp_path, "w.csv", german), layout="woocommerce", columns=columns)
    assert (rows[0]["category"], rows[0]["image_id"]) == ("A/B", "L/x.jpg")
    assert outcome.notes == (f"{tmp_path}/w.csv: woocommerce layout",)


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        ("id,image_link,Handle,Image Src,product_type", {}, "--layout google or shopify"),
        ("id,image_link", {}, "category: missing"),
        ("Handle,Image Src,typ", {}, "category: missing; did you mean typ?"),
        ("id,image_link,product_type", {"columns": {"uri": "image_link"}}, "write image=image_link"),
        ("id,image_link,product_type,id", {}, "columns that stand there twice: id"),
        ("Kategorie,Bild", {"layout": "magento"}, "product_id: missing"),
    ],
)
def test_layouts_that_do_not_fit(tmp_path: Path, header: str, options: dict[str, Any], said: str) -> None:
    assert said in refusal(write(tmp_path, "x.csv", f"{header}\n"), **options)


def test_repeated_columns_of_images_are_several_images(tmp_path: Path) -> None:
    text = "id,image_link,additional_image_link,additional_image_link,product_type\n1,https://c/1.jpg,https://c/2.jpg,https://c/3.jpg,A\n"
    assert names(take(write(tmp_path, "g.csv", text))[0]) == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize(
    "columns",
    [
        ("image_link", "additional_image_link[0]", "additional_image_link[1]"),
        ("image_link", "Additional_Image_Link", "additional_image_link[0]"),
        ("image[0].url", "image[1].url", "image[2].url"),
    ],
)
def test_numbered_columns_of_images_are_several_images(tmp_path: Path, columns: tuple[str, ...]) -> None:
    text = (
        f"id,{','.join(columns)},image[0].tag[0],product_type\n1,https://c/1.jpg,https://c/2.jpg,https://c/3.jpg,x,A\n"
    )
    assert names(take(write(tmp_path, "g.csv", text))[0]) == ["1.jpg", "2.jpg", "3.jpg"]


def test_columns_of_a_list_are_not_taken_for_a_layout(tmp_path: Path) -> None:
    text = "image,product_id,category,id,image_link\na.jpg,p,c,1,https://c/x.jpg\n"
    assert take(write(tmp_path, "l.csv", text))[1].notes[0].endswith("plain layout")


@pytest.mark.parametrize(
    ("name", "layout", "rows", "products", "causes"),
    [
        ("google.tsv", "google", 5, 2, 0),
        ("google.xml", "google", 3, 1, 1),
        ("shopify.csv", "shopify", 4, 2, 1),
        ("woocommerce.csv", "woocommerce", 3, 2, 3),
        ("magento.csv", "magento", 3, 2, 4),
        ("products.jsonl", "plain", 2, 1, 0),
    ],
)
def test_the_shapes_of_exports(
    shared_data: Path, tmp_path: Path, name: str, layout: str, rows: int, products: int, causes: int
) -> None:
    out = str(tmp_path / "m.parquet")
    outcome = make_from_export(str(shared_data / "feeds" / name), out)
    assert (outcome.counts.rows, outcome.counts.images, outcome.counts.products) == (rows, rows, products)
    assert f": {layout} layout" in outcome.notes[0]
    assert len(outcome.notes) == 1 + causes
    assert make_from_export(str(shared_data / "feeds" / name), out, Options(layout=layout)).counts == outcome.counts


def test_a_spreadsheet(shared_data: Path, tmp_path: Path) -> None:
    columns = {"product_id": "Artikel", "category": "Kategorie", "image": "Bild"}
    out = tmp_path / "m.parquet"
    make_from_export(str(shared_data / "feeds" / "excel-semicolon.csv"), str(out), Options(columns=columns))
    first = pq.read_table(out).to_pylist()[0]
    assert (first["product_id"], first["category"]) == ("A-1", "Damen/Röcke")
    assert dict(first["attributes"]) == {"Farbe": "grün; hell", "Preis": "1.299,00"}


# Folders


JPEG, PNG = b"\xff\xd8\xff\xe0" + bytes(40), b"\x89PNG\r\n\x1a\n" + bytes(40)


def test_what_of_a_folder_is_a_picture(tmp_path: Path) -> None:
    for path, content in {
        "mugs/a.JPG": b"",
        "mugs/b.jfif": b"",
        "mugs/c.JPE": b"",
        "mugs/no suffix": JPEG,
        "mugs/v1.2": PNG,
        "mugs/notes.txt": b"hello",
        "mugs/empty": b"",
        "mugs/png": PNG,
        "mugs/@eaDir/a.JPG/SYNOPHOTO_THUMB_M.jpg": JPEG,
        "mugs/@EADIR/a.jpg": JPEG,
        "mugs/.DS_Store": JPEG,
        "mugs/._a.JPG": JPEG,
        "__MACOSX/mugs/a.jpg": JPEG,
        "loose.png": PNG,
    }.items():
        (tmp_path / "pics" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pics" / path).write_bytes(content)
    outcome = make_from_folder(str(tmp_path / "pics"), str(tmp_path / "m.parquet"))
    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert [(r["image_id"], r["product_id"]) for r in rows] == [
        ("loose.png", "loose"),
        ("mugs/a.JPG", "a"),
        ("mugs/b.jfif", "b"),
        ("mugs/c.JPE", "c"),
        ("mugs/no suffix", "no suffix"),
        ("mugs/png", "png"),
        ("mugs/v1.2", "v1.2"),
    ]
    assert outcome.notes == (
        "5 files that are hidden, or of a NAS or an operating system, were left out, such as __MACOSX/mugs/a.jpg",
        "1 pictures are in no folder, so have no category and will be rejected, such as loose.png",
        "2 files that are no pictures were left out, such as mugs/empty",
    )


# The job


def test_the_job_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path, "g.tsv", GOOGLE_HEAD + "A\t\thttps://c/a.jpg\t\t\tW\t\t\nB\t\t\t\t\tW\t\t\n")
    job = importlib.import_module("jobs.make_manifest")
    out = tmp_path / "m.parquet"
    assert job.main(["--csv", str(source), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 1 rows, 1 products, 1 categories",
        f"{source}: google layout, recognised by id, image_link",
        "1 rows have no image and were left out, such as B (row 3)",
    ]
    assert job.main(["--csv", str(source), "--out", str(out), "--column", "product_id"]) == 2
    assert "write it as FIELD=NAME" in capsys.readouterr().err
